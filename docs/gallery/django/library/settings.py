from pathlib import Path

BASE_DIR = Path(__file__).parent.parent

SECRET_KEY = "the gallery's own key: a real one comes from the environment"
DEBUG = False
ALLOWED_HOSTS = ["*"]  # the layer `hosts` decides, for all apps

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "library.urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "library.sqlite"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Absolute: a relative one takes the prefix of the process's first request, and keeps it.
STATIC_URL = "/library/static/"
STATIC_ROOT = BASE_DIR / "static_root"
