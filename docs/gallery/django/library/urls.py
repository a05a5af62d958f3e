from django.contrib import admin
from django.http import HttpResponse
from django.middleware.csrf import get_token
from django.shortcuts import redirect
from django.urls import path, reverse

books = ["Middlemarch"]


def index(request):
    shelf = "".join(f"<li>{book}</li>" for book in books)
    form = f'<input type="hidden" name="csrfmiddlewaretoken" value="{get_token(request)}"><input name="title">'
    return HttpResponse(
        f'<ul>{shelf}</ul><form method="post" action="{reverse("add")}">{form}<button>Add</button></form>'
    )


def add(request):
    books.append(request.POST["title"])
    return redirect("index")


urlpatterns = [
    path("", index, name="index"),
    path("add", add, name="add"),
    path("admin/", admin.site.urls),
]
