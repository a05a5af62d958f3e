import os
import time

from joserfc import jwt
from joserfc.jwk import OctKey

from lamella.apps.router import Router, abort

router = Router()
key = OctKey.import_key(os.environ["API_KEY"])
passwords = {"ada": "analytical"}
roles = {"ada": ["editor"]}
texts = {}


@router.post("/token")
def token(request):
    """Change a password for a token of ten minutes."""
    sent = request.json
    name = sent.get("user", "") if isinstance(sent, dict) else abort(400, "an object with user and password")
    if passwords.get(name) is None or sent.get("password") != passwords[name]:
        abort(403, "wrong user or password")
    now = int(time.time())
    claims = {"iss": "gallery", "aud": "texts", "sub": name, "iat": now, "exp": now + 600, "roles": roles[name]}
    return {"token": jwt.encode({"alg": "HS256"}, claims, key), "expires_in": 600}


@router.get("/texts/<name>")
def read(request, name):
    return {"name": name, "text": texts.get(name) or abort(404, "no such text")}


@router.put("/texts/<name>")
def write(request, name):
    identity = request.environ["lamella.identity"]
    texts[name] = f"{request.json['text']} ({identity.user})"
    return {"name": name, "text": texts[name]}, 201


@router.get("/me")
def me(request):
    identity = request.environ["lamella.identity"]
    return {"user": identity.user, "roles": sorted(identity.roles), "scheme": identity.scheme}
