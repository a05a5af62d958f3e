"""Sessions in a database through SQLAlchemy Core: PostgreSQL, MariaDB, MySQL, SQLite and others.

One table, one row for each session, its values in one JSON text. A commit replaces the row
only if its version is the one it read (no transaction is held while an application works);
where another request wrote in between, it reads again, merges by key and tries again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar, cast

from lamella.stack.kernel.errors import ConfigError, import_extra

from ._session_json import decode, encode
from ._session_store import (
    MOST_NAMES,
    MOVED_SECONDS,
    TOO_MANY_NAMES,
    Change,
    ConflictError,
    GoneError,
    PerProcess,
    Record,
    StoreDownError,
)

if TYPE_CHECKING:
    from lamella.stack.kernel.keys import JSON

__all__ = ["SQLStore"]

T = TypeVar("T")

# Seconds until a connection, and a place in the pool, is given up.
_CONNECT_TIMEOUT, _POOL_TIMEOUT = 2, 5
_STATEMENT_TIMEOUT = 5
# A commit that meets other commits tries again; so often in a row is no coincidence.
_ATTEMPTS = 200
# Expired rows are looked for at most this often, in seconds, and this many are removed at once.
_PURGE_EVERY, _PURGE_AT_ONCE = 60.0, 500
# The version of a row that only tells, instead of data, which name its record has now.
_MOVED = -1


class SQLStore:
    """Keeps each record in one row of the table ``lamella_session``, which it creates.

    Args:
        url: As SQLAlchemy takes it. ``postgresql://`` and ``postgres://`` without a driver take the one installed.
        clock: Seconds since the epoch.
    """

    single_process: str | None = None

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        self._sql: Any = import_extra("sqlalchemy", "sql")
        try:
            self._url = _with_driver(self._sql.make_url(url))
            self._url.get_dialect()
        except (self._sql.exc.ArgumentError, self._sql.exc.NoSuchModuleError, ValueError):
            expected = "a URL of SQLAlchemy with a dialect that is installed, such as postgresql://user@host/database"
            raise ConfigError("store", url, expected) from None
        self._clock = clock
        self._table = _table(self._sql)
        self._engine: PerProcess[Any] = PerProcess(partial(_connect, self._sql, self._url, self._table), _disconnect)
        self._next_purge = 0.0

    def _ask(self, ask: Callable[[Any], T]) -> T:
        """Ask with a connection of this process."""
        try:
            with self._engine().connect() as connection:
                return ask(connection)
        except (self._sql.exc.DBAPIError, self._sql.exc.TimeoutError, OSError) as error:
            raise StoreDownError(f"SQL: {getattr(error, 'orig', None) or error}") from error

    def _change(self, statement: Any) -> int:
        """Carry out a statement; return how many rows it changed."""
        return int(self._ask(lambda connection: connection.execute(statement).rowcount))

    def _alive(self, key: str) -> Any:
        columns = self._table.c
        return self._sql.and_(columns.id == key, columns.expires > self._clock(), columns.version > 0)

    def load(self, key: str) -> Record | None:
        """Return the record, or None where there is none that lives."""
        columns = self._table.c
        query = self._sql.select(
            columns.data, columns.version, columns.created, columns.expires, columns.permanent
        ).where(self._alive(key))
        row = self._ask(lambda connection: connection.execute(query).first())
        if row is None:
            return None
        return Record(cast("dict[str, JSON]", decode(row[0])), row[1], row[2], row[3], bool(row[4]))

    def create(self, key: str, record: Record) -> bool:
        """Add a record; False where the key is taken."""
        statement = self._table.insert().values(
            id=key,
            version=1,
            created=record.created,
            expires=record.expires,
            permanent=int(record.permanent),
            data=encode(record.data),
        )

        def insert(connection: Any) -> bool:
            try:
                connection.execute(statement)
            except self._sql.exc.IntegrityError:
                return False
            return True

        added = self._ask(insert)
        now = self._clock()
        if now >= self._next_purge:
            self._next_purge = now + _PURGE_EVERY
            self._purge(_PURGE_AT_ONCE)
        return added

    def commit(self, key: str, version: int, change: Change) -> None:
        """Write the changed keys; again, where another commit came between."""
        data = change.data
        for attempt in range(_ATTEMPTS):
            replace = self._replace if change.rename is None else self._rename
            if replace(key, version, data, change):
                return
            if attempt:
                time.sleep(random.uniform(0, 0.0005 * min(attempt, 20)))
            record = self.load(key)
            if record is None:
                raise GoneError("the session is gone")
            if change.strict and record.version != version:
                raise ConflictError("the session was written by another request")
            version = record.version
            data = {name: value for name, value in record.data.items() if name not in change.dels}
            data |= {name: change.data[name] for name in change.sets}
        raise StoreDownError("SQL: one session is written by too many requests at once")

    def _replace(self, key: str, version: int, data: dict[str, JSON], change: Change) -> bool:
        statement = (
            self._table.update()
            .where(self._alive(key), self._table.c.version == version)
            .values(
                version=version + 1,
                data=encode(data),
                expires=change.expires,
                permanent=int(change.permanent),
            )
        )
        return bool(self._change(statement))

    def _rename(self, key: str, version: int, data: dict[str, JSON], change: Change) -> bool:
        """Copy the row, then turn the old one into a way to the new, if nobody wrote it or deleted it since.

        Whoever dies in between leaves a copy with a name that nobody was told.
        """
        sql, columns = self._sql, self._table.c
        ours = sql.and_(self._alive(key), columns.version == version)
        copied: dict[str, Any] = {
            "id": change.rename,
            "version": version + 1,
            "data": encode(data),
            "expires": change.expires,
            "permanent": int(change.permanent),
        }
        values = [sql.literal(value, columns[name].type) for name, value in copied.items()]
        copy = self._table.insert().from_select([*copied, "created"], sql.select(*values, columns.created).where(ours))
        moved = {"version": _MOVED, "data": change.rename, "expires": self._clock() + MOVED_SECONDS}
        turn = self._table.update().where(ours).values(moved)
        if not self._change(copy):
            return False
        if self._change(turn):
            return True
        self._change(self._table.delete().where(columns.id == change.rename))
        return False

    def delete(self, key: str) -> None:
        """Remove the record, by any name that it had a moment ago."""
        columns = self._table.c
        names: list[str] = []
        for _ in range(MOST_NAMES):
            names.append(key)
            # What leads on goes last: another logout by an old name gets as far as this one, if this one fails.
            if self._change(self._table.delete().where(columns.id == key, columns.version > 0)):
                break
            query = self._sql.select(columns.data).where(
                columns.id == key, columns.version == _MOVED, columns.expires > self._clock()
            )
            moved = self._ask(partial(_scalar, query))
            if moved is None:
                break
            key = moved
        else:
            raise StoreDownError(TOO_MANY_NAMES)
        if len(names) > 1:
            self._change(self._table.delete().where(columns.id.in_(names)))

    def touch(self, key: str, expires: float) -> None:
        """Let the record, if it is there, live until *expires*."""
        statement = self._table.update().where(self._alive(key)).values(expires=expires)
        self._ask(lambda connection: connection.execute(statement))

    def purge(self) -> int:
        """Remove expired records and old names; return how many."""
        removed = 0
        while more := self._purge(_PURGE_AT_ONCE):
            removed += more
        return removed

    def _purge(self, limit: int) -> int:
        columns = self._table.c
        now = self._clock()
        # MySQL takes no LIMIT in a subquery of DELETE, so the names come first.
        names = self._sql.select(columns.id).where(columns.expires <= now).limit(limit)

        def delete(connection: Any) -> int:
            expired = list(connection.execute(names).scalars())
            if not expired:
                return 0
            statement = self._table.delete().where(columns.id.in_(expired), columns.expires <= now)
            return int(connection.execute(statement).rowcount)

        return self._ask(delete)

    def count(self) -> int:
        """Return how many records live."""
        query = self._sql.select(self._sql.func.count()).where(
            self._table.c.expires > self._clock(), self._table.c.version > 0
        )
        return int(self._ask(lambda connection: connection.execute(query).scalar()))

    def acquire(self, key: str, holder: str, seconds: float) -> bool:
        """Lock the record for *holder*; False where another holds it. A missing record needs no lock."""
        now, columns = self._clock(), self._table.c
        statement = (
            self._table.update()
            .where(columns.id == key, self._sql.or_(columns.lock_holder.is_(None), columns.lock_until <= now))
            .values(lock_holder=holder, lock_until=now + seconds)
        )
        query = self._sql.select(columns.id).where(columns.id == key)

        def lock(connection: Any) -> bool:
            return bool(connection.execute(statement).rowcount) or connection.execute(query).first() is None

        return self._ask(lock)

    def release(self, key: str, holder: str) -> None:
        """Unlock it, if *holder* still holds it."""
        columns = self._table.c
        statement = (
            self._table.update()
            .where(columns.id == key, columns.lock_holder == holder)
            .values(lock_holder=None, lock_until=None)
        )
        self._ask(lambda connection: connection.execute(statement))

    def close(self) -> None:
        """Close this process's connections."""
        self._engine.close()


def _scalar(query: Any, connection: Any) -> Any:
    return connection.execute(query).scalar()


def _connect(sql: Any, url: Any, table: Any) -> Any:
    backend = url.get_backend_name()
    options: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    if backend == "postgresql":
        arguments["connect_timeout"] = _CONNECT_TIMEOUT
        arguments["options"] = f"-c statement_timeout={_STATEMENT_TIMEOUT * 1000}"
    elif backend in ("mysql", "mariadb"):
        arguments["connect_timeout"] = _CONNECT_TIMEOUT
    if backend != "sqlite":
        options.update(pool_pre_ping=True, pool_timeout=_POOL_TIMEOUT, pool_recycle=1800)
    # Each statement is a transaction of its own: what it does is decided by its WHERE.
    engine = sql.create_engine(url, isolation_level="AUTOCOMMIT", connect_args=arguments, **options)
    if backend == "sqlite":
        sql.event.listen(engine, "connect", _tune_sqlite)
    try:
        table.metadata.create_all(engine)
    except sql.exc.DBAPIError:
        # Two processes that start at once both find no table, and one of them comes second.
        if not sql.inspect(engine).has_table(table.name):
            raise
    return engine


def _tune_sqlite(connection: Any, _: object) -> None:
    """Let readers and a writer work at once, as the store of ``sqlite://`` does."""
    connection.execute("PRAGMA journal_mode=WAL").close()
    connection.execute("PRAGMA synchronous=NORMAL").close()


def _disconnect(engine: Any) -> None:
    engine.dispose()


def _with_driver(url: Any) -> Any:
    """Name the PostgreSQL driver that is installed, where the URL names none."""
    if url.drivername not in ("postgresql", "postgres"):
        return url
    for module, driver in (("psycopg", "psycopg"), ("psycopg2", "psycopg2"), ("pg8000", "pg8000")):
        if find_spec(module) is not None:
            return url.set(drivername=f"postgresql+{driver}")
    import_extra("psycopg", "sql")
    return url


def _table(sql: Any) -> Any:
    # TEXT of MySQL ends at 64 KiB.
    long_text = import_extra("sqlalchemy.dialects.mysql", "sql").MEDIUMTEXT()
    return sql.Table(
        "lamella_session",
        sql.MetaData(),
        sql.Column("id", sql.String(64), primary_key=True),
        sql.Column("version", sql.Integer, nullable=False),
        sql.Column("created", sql.Double, nullable=False),
        sql.Column("expires", sql.Double, nullable=False, index=True),
        sql.Column("permanent", sql.Integer, nullable=False),
        sql.Column("data", sql.Text().with_variant(long_text, "mysql", "mariadb"), nullable=False),
        sql.Column("lock_holder", sql.String(64)),
        sql.Column("lock_until", sql.Double),
    )
