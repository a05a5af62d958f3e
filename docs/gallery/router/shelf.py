from pathlib import Path

from sqlalchemy import ForeignKey, create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from lamella.apps.router import Router, abort, redirect

HERE = Path(__file__).parent
engine = create_engine(f"sqlite:///{HERE / 'shelf.sqlite'}")
router = Router(templates=HERE / "templates")


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    books: Mapped[list["Book"]] = relationship(back_populates="author", order_by="Book.title")


class Book(Base):
    __tablename__ = "book"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author] = relationship(back_populates="books")


Base.metadata.create_all(engine)


@router.before
def open_session(request):
    request.environ["shelf.database"] = Session(engine)


@router.teardown
def close_session(request, error):
    """After the last block: kept where all went well, forgotten where not."""
    session = request.environ.get("shelf.database")
    if session is not None:
        session.close()


def database(request) -> Session:
    return request.environ["shelf.database"]


def render(request, template, **values):
    return router.render(request, template, csrf=request.environ["lamella.csrf"], **values)


@router.get("/")
def index(request):
    authors = database(request).scalars(select(Author).order_by(Author.name)).all()
    flashes = request.environ["lamella.session"].flashes()
    return render(request, "index.html", authors=authors, flashes=flashes)


@router.post("/books")
def add(request):
    session = database(request)
    name, title = request.POST["author"].strip(), request.POST["title"].strip()
    if not (name and title):
        abort(422, "A book has a title and an author.")
    author = session.scalar(select(Author).where(Author.name == name)) or Author(name=name)
    author.books.append(Book(title=title))
    session.add(author)
    session.commit()
    request.environ["lamella.session"].flash(f"Added {title}.")
    return redirect(request.url_for("author", id=author.id), 303)


@router.get("/authors/<int:id>")
def author(request, id):
    found = database(request).get(Author, id) or abort(404, "No such author.")
    flashes = request.environ["lamella.session"].flashes()
    return render(request, "author.html", author=found, flashes=flashes)


@router.get("/count")
def count(request):
    return {"books": database(request).scalar(select(func.count(Book.id)))}
