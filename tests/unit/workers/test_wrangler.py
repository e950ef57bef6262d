"""Wrangler files: what each key becomes, in both languages, and what is refused with which sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepwell.errors import UsageError
from stepwell.workers.config import (
    Consumer,
    D1Database,
    DurableObjectBinding,
    KvNamespace,
    Migration,
    Producer,
    Project,
    Renamed,
    ServiceBinding,
    WorkflowBinding,
)
from stepwell.workers.wrangler import check_together, read_project

TOML = """
name = "shop"
main = "src/entry.py"
compatibility_date = "2026-07-01"
compatibility_flags = ["python_workers", "python_workflows_implicit_dependencies"]

[vars]
API = "https://api.example.com"
LIMIT = 3
FEATURES = { beta = true, names = ["a", "b"] }

[[queues.producers]]
queue = "jobs"
binding = "JOBS"
delivery_delay = 60

[[queues.consumers]]
queue = "jobs"
max_batch_size = 10
max_batch_timeout = 5
max_retries = 3
retry_delay = 120
max_concurrency = 4
dead_letter_queue = "jobs-dead"

[[queues.consumers]]
queue = "jobs-dead"
type = "http_pull"
visibility_timeout_ms = 5000

[triggers]
crons = ["*/5 * * * *", "0 18 * * 6L"]

[[kv_namespaces]]
binding = "FLAGS"
id = "abc"

[[d1_databases]]
binding = "DB"
database_name = "shop"
database_id = "0000-11"
migrations_dir = "sql"

[[durable_objects.bindings]]
name = "TENANTS"
class_name = "Tenant"

[[durable_objects.bindings]]
name = "OTHERS"
class_name = "Other"
script_name = "other-worker"

[[migrations]]
tag = "v1"
new_sqlite_classes = ["Customer"]
new_classes = ["Old", "Legacy"]

[[migrations]]
tag = "v2"
renamed_classes = [{ from = "Customer", to = "Tenant" }]
deleted_classes = ["Old"]

[[workflows]]
name = "fulfil"
binding = "FULFIL"
class_name = "Fulfil"

[[services]]
binding = "AUTH"
service = "auth-worker"
entrypoint = "Admin"

[limits]
cpu_ms = 30000

[env.staging]
vars = { API = "https://staging.example.com" }

[env.staging.triggers]
crons = []

[env.live]
name = "shop-of-live"
compatibility_date = "2026-01-01"
[[env.live.kv_namespaces]]
binding = "FLAGS"
id = "live"
"""

JSONC = """\ufeff// The same in the other language.
{
  "$schema": "node_modules/wrangler/config-schema.json", // a text with // in it is no comment: "https://x"
  "name": "shop", /* the
  name */ "main": "src/entry.py",
  "compatibility_date": "2026-07-01",
  "vars": {"API": "https://api.example.com/*not a comment*/", "quote": "a \\" // b",},
  "queues": {
    "producers": [{"queue": "jobs", "binding": "JOBS"},],
    "consumers": [{"queue": "jobs", "max_batch_size": 10,
    }]
  },
}
"""


def project(tmp_path: Path, text: str, name: str = "wrangler.toml", environment: str | None = None) -> Project:
    (tmp_path / "src").mkdir(exist_ok=True)
    (tmp_path / "src/entry.py").write_text("")
    (tmp_path / name).write_text(text)
    return read_project(tmp_path, environment)


def test_a_whole_file(tmp_path: Path) -> None:
    """Every key that something is made of."""
    assert project(tmp_path, TOML) == Project(
        file=tmp_path / "wrangler.toml",
        name="shop",
        main=tmp_path / "src/entry.py",
        compatibility_date="2026-07-01",
        compatibility_flags=("python_workers", "python_workflows_implicit_dependencies"),
        vars={"API": "https://api.example.com", "LIMIT": 3, "FEATURES": {"beta": True, "names": ["a", "b"]}},
        producers=(Producer(binding="JOBS", queue="jobs", delivery_delay_s=60),),
        consumers=(
            Consumer(
                queue="jobs",
                max_batch_size=10,
                max_batch_timeout_s=5,
                max_retries=3,
                retry_delay_s=120,
                max_concurrency=4,
                dead_letter_queue="jobs-dead",
            ),
            Consumer(queue="jobs-dead", is_pulled=True, visibility_timeout_ms=5000),
        ),
        crons=("*/5 * * * *", "0 18 * * 6L"),
        kv_namespaces=(KvNamespace(binding="FLAGS", id="abc"),),
        d1_databases=(D1Database(binding="DB", name="shop", id="0000-11", migrations_dir="sql"),),
        durable_objects=(
            DurableObjectBinding(binding="TENANTS", class_name="Tenant"),
            DurableObjectBinding(binding="OTHERS", class_name="Other", script="other-worker"),
        ),
        migrations=(
            Migration(tag="v1", new_sqlite_classes=("Customer",), new_classes=("Old", "Legacy")),
            Migration(tag="v2", renamed_classes=(Renamed(before="Customer", after="Tenant"),), deleted_classes=("Old",)),
        ),
        workflows=(WorkflowBinding(binding="FULFIL", name="fulfil", class_name="Fulfil"),),
        services=(ServiceBinding(binding="AUTH", service="auth-worker", entrypoint="Admin"),),
        cpu_ms=30_000,
    )
    read = project(tmp_path, TOML)
    assert read.object_classes == {"Tenant": "sqlite", "Legacy": "kv"}
    assert read.has_flag("python_workers") and not read.has_flag("nodejs_compat") and read.folder == tmp_path


def test_json_with_comments(tmp_path: Path) -> None:
    """Comments and trailing commas are passed over, except in texts; what is only for Cloudflare is told."""
    read = project(tmp_path, JSONC, "wrangler.jsonc")
    assert read.vars == {"API": "https://api.example.com/*not a comment*/", "quote": 'a " // b'}
    assert read.consumers == (Consumer(queue="jobs", max_batch_size=10),)
    assert read.ignored == (f"{tmp_path}/wrangler.jsonc: $schema is about deploying to Cloudflare and changes nothing here",)


def test_an_environment_has_its_own_bindings(tmp_path: Path) -> None:
    """It inherits name, main, dates, schedules and migrations, and no binding; what it says itself goes before."""
    staging = project(tmp_path, TOML, environment="staging")
    assert (staging.name, staging.main, staging.environment) == ("shop-staging", tmp_path / "src/entry.py", "staging")
    assert (staging.vars, staging.crons, staging.cpu_ms) == ({"API": "https://staging.example.com"}, (), 30_000)
    assert not (staging.producers or staging.consumers or staging.kv_namespaces or staging.d1_databases or staging.durable_objects)
    assert staging.migrations == project(tmp_path, TOML).migrations
    live = project(tmp_path, TOML, environment="live")
    assert (live.name, live.compatibility_date, live.vars) == ("shop-of-live", "2026-01-01", {})
    assert live.kv_namespaces == (KvNamespace(binding="FLAGS", id="live"),) and live.crons == ("*/5 * * * *", "0 18 * * 6L")
    with pytest.raises(UsageError, match=r"has no environment 'test': there are staging, live"):
        project(tmp_path, TOML, environment="test")
    with pytest.raises(UsageError, match=r"has no environment 'test': it has none"):
        project(tmp_path, SMALL, environment="test")


SMALL = 'name = "shop"\nmain = "src/entry.py"\n'


def test_secrets(tmp_path: Path) -> None:
    """`.dev.vars` alone counts where it is there, of an environment its own; else the `.env` files, the more local the later."""
    (tmp_path / ".env").write_text("A=env\nB=env\nC=env\nD=env")
    (tmp_path / ".env.local").write_text("B=local\nD=local\n")
    (tmp_path / ".env.live").write_text("C=live\nD=live\n")
    (tmp_path / ".env.live.local").write_text("D=live local\n")
    live = SMALL + "[env.live]\n"
    assert project(tmp_path, live).secrets == {"A": "env", "B": "local", "C": "env", "D": "local"}
    assert project(tmp_path, live, environment="live").secrets == {"A": "env", "B": "local", "C": "live", "D": "live local"}
    (tmp_path / ".dev.vars").write_text("A=dev\n")
    assert project(tmp_path, live).secrets == {"A": "dev"} == project(tmp_path, live, environment="live").secrets
    (tmp_path / ".dev.vars.live").write_text("A=dev of live\n")
    assert project(tmp_path, live, environment="live").secrets == {"A": "dev of live"}


def test_the_form_of_secrets(tmp_path: Path) -> None:
    """Quotes, comments, exports, line breaks."""
    (tmp_path / ".dev.vars").write_text(
        "# a comment\r\n"
        "PLAIN = two words  # why\r\n"
        "export TOKEN=abc=def#not\n"
        "\n"
        'DOUBLE="a # b\\nsecond \\"line\\""\n'
        "SINGLE='a \\n b' # why\n"
        'KEY="-----BEGIN\nabc\n-----END"\n'
        'BACK=`it\'s "so"`\n'
        "EMPTY=\n"
        "LAST=1"
    )
    assert project(tmp_path, SMALL).secrets == {
        "PLAIN": "two words",
        "TOKEN": "abc=def",
        "DOUBLE": 'a # b\nsecond "line"',
        "SINGLE": "a \\n b",
        "KEY": "-----BEGIN\nabc\n-----END",
        "BACK": 'it\'s "so"',
        "EMPTY": "",
        "LAST": "1",
    }


def test_which_file_counts(tmp_path: Path) -> None:
    """JSON before JSONC before TOML; a file may be given itself."""
    project(tmp_path, SMALL)
    assert project(tmp_path, '{"name": "of-jsonc", "main": "src/entry.py"}', "wrangler.jsonc").name == "of-jsonc"
    assert project(tmp_path, '{"name": "of-json", "main": "src/entry.py"}', "wrangler.json").name == "of-json"
    assert read_project(tmp_path / "wrangler.toml").name == "shop"
    with pytest.raises(UsageError, match=r"src has none of wrangler.json, wrangler.jsonc, wrangler.toml"):
        read_project(tmp_path / "src")
    with pytest.raises(UsageError, match=r"nowhere is no folder of wrangler.json"):
        read_project(tmp_path / "nowhere")


def test_defaults(tmp_path: Path) -> None:
    """What is not said is left to Stepwell; ids that wrangler would make are names here."""
    read = project(tmp_path, SMALL + '[[kv_namespaces]]\nbinding = "KV"\n[[d1_databases]]\nbinding = "DB"\n')
    assert read.kv_namespaces == (KvNamespace(binding="KV", id="KV"),)
    assert read.d1_databases == (D1Database(binding="DB", name="DB", id="DB", migrations_dir="migrations"),)
    assert (read.crons, read.cpu_ms, read.ignored) == ((), None, ())


def test_what_is_ignored_is_told(tmp_path: Path) -> None:
    """With the reason; a slip of the pen with what may be meant."""
    read = project(
        tmp_path,
        SMALL
        + """
workers_dev = true
account_id = "x"
migration = 3
[[r2_buckets]]
binding = "FILES"
bucket_name = "files"
[observability]
enabled = true
[[queues.consumers]]
queue = "jobs"
batch_size = 3
""",
    )
    place = f"{tmp_path}/wrangler.toml: "
    assert sorted(read.ignored) == [
        place + "account_id is about deploying to Cloudflare and changes nothing here",
        place + "migration is not known here and ignored; is migrations meant?",
        place + "observability is about deploying to Cloudflare and changes nothing here",
        place + "queues.consumers[0].batch_size is not known here and ignored",
        place + "r2_buckets has no counterpart here: what it binds is missing from env",
        place + "workers_dev is about deploying to Cloudflare and changes nothing here",
    ]


CONSUMER = '[[queues.consumers]]\nqueue = "q"\n'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (CONSUMER + "max_batch_size = 101", "queues.consumers[0].max_batch_size is 101; it must be a whole number from 0 to 100"),
        (CONSUMER + "max_batch_timeout = 61", "queues.consumers[0].max_batch_timeout is 61; it must be a whole number from 0 to 60"),
        (CONSUMER + "max_retries = 101", "max_retries is 101; it must be a whole number from 0 to 100"),
        (CONSUMER + "retry_delay = 86401", "retry_delay is 86401; it must be a whole number from 0 to 86400"),
        (CONSUMER + "retry_delay = 1.5", "retry_delay is 1.5; it must be a whole number"),
        (CONSUMER + "retry_delay = true", "retry_delay is True; it must be a whole number"),
        (CONSUMER + "max_concurrency = 0", "max_concurrency is 0; it must be a whole number from 1 to 250"),
        (CONSUMER + 'dead_letter_queue = "q"', "dead_letter_queue is 'q'; Dead letter queue for queue \"q\" cannot be itself"),
        (CONSUMER + 'type = "pull"', 'type is \'pull\'; it must be "worker" or "http_pull"'),
        (CONSUMER + CONSUMER, "queues.consumers[1].queue is 'q'; the queue has a consumer above already"),
        ("[[queues.consumers]]", "queues.consumers[0].queue is missing; it must be a text"),
        ('queues = "q"', "queues is 'q'; it must be a table"),
        ('[queues]\nconsumers = "q"', "queues.consumers is 'q'; it must be a list of tables"),
        ('[[queues.producers]]\nqueue = "q"\nbinding = "Q"\ndelivery_delay = -1', "delivery_delay is -1; it must be a whole number"),
        ('[[queues.producers]]\nqueue = "q"\nbinding = "my-queue"', "binding is 'my-queue'; it must be a name that Python can read"),
        (
            '[triggers]\ncrons = ["* * * * 0"]',
            "triggers.crons is ['* * * * 0']; cron '* * * * 0': the day of week '0' is not between 1 and 7",
        ),
        ('[triggers]\ncrons = ["* * * * *", "* * * * *"]', "'* * * * *' is there twice"),
        ('[triggers]\ncrons = "* * * * *"', "triggers.crons is '* * * * *'; it must be a list of texts"),
        ("[limits]\ncpu_ms = 300001", "limits.cpu_ms is 300001; it must be a whole number from 1 to 300000"),
        ("[vars]\nSINCE = 2026-01-01", "vars.SINCE is datetime.date(2026, 1, 1); it must be what JSON can hold"),
        ("[vars]\nDB = 1\n[[d1_databases]]\nbinding = 'DB'", "d1_databases and"),
        ("[[kv_namespaces]]\nbinding = 'A'\n[[kv_namespaces]]\nbinding = 'A'", "both bind 'A': give one of them another name"),
        ("[[migrations]]\nnew_classes = ['A']", "migrations[0].tag is missing"),
        ("[[migrations]]\ntag = 'a'\n[[migrations]]\ntag = 'a'", "migrations[1].tag is 'a'; a migration above has this tag"),
        (
            "[[migrations]]\ntag = 'a'\nnew_classes = ['A']\n[[durable_objects.bindings]]\nname = 'B'\nclass_name = 'B'",
            "binds class 'B', which no migration makes: add it to new_sqlite_classes of a migration",
        ),
        ("[[workflows]]\nbinding = 'W'\nname = 'w'", "workflows[0].class_name is missing"),
        ("[[services]]\nbinding = 'S'\nservice = ''", "services[0].service is ''; it must be a text that is not empty"),
        ("name = 1", "is no TOML: Cannot overwrite a value"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    """By file, key, value and what it may be."""
    with pytest.raises(UsageError) as caught:
        project(tmp_path, SMALL + text)
    assert str(caught.value).startswith(f"{tmp_path}/wrangler.toml") and sentence in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "line 1, column 2"),
        ('{\n  "name": "a" /* x\ny */ "main": 1}', "line 3, column 6"),
        ('{"name": "a", /* open', "line 1, column 15"),
        ('{"a": [,]}', "line 1, column 8"),
        ('{"a": [1,,]}', "line 1, column 10"),
        ('{"name": "a", "name": "b"}', "'name' is there twice in one object"),
        ('{"name": NaN}', "NaN is no JSON number"),
        ("[1]", "holds list; it must hold an object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"main": "src/entry.py"}', "name is missing; it must be a text"),
        ('{"name": "Shop", "main": "src/entry.py"}', "name is 'Shop'; it must be of lower-case letters"),
        ('{"name": "shop", "main": "src/index.ts"}', "main is 'src/index.ts'; it must be a Python file"),
        ('{"name": "shop", "main": "src/other.py"}', "main is 'src/other.py'; there is no file"),
        ('{"name": "shop", "main": "src/entry.py", "compatibility_date": "today"}', "compatibility_date is 'today'; it must be a date"),
        ('{"name": "shop", "main": "src/entry.py", "compatibility_flags": "python_workers"}', "must be a list of texts"),
    ],
)
def test_json_that_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    """With line and column where it is no JSON."""
    with pytest.raises(UsageError) as caught:
        project(tmp_path, text, "wrangler.jsonc")
    assert str(caught.value).startswith(f"{tmp_path}/wrangler.jsonc") and sentence in str(caught.value)


def test_several_projects_together(tmp_path: Path) -> None:
    """Two of one name, or with one queue, cannot run beside each other."""

    def made(name: str, text: str) -> Project:
        folder = tmp_path / name
        folder.mkdir()
        return project(folder, text)

    sends = '[[queues.producers]]\nqueue = "q"\nbinding = "Q"\n'
    one = made("a", 'name = "a"\nmain = "src/entry.py"\n' + CONSUMER)
    two = made("b", 'name = "b"\nmain = "src/entry.py"\n' + sends)
    check_together([one, two])
    three = made("c", 'name = "c"\nmain = "src/entry.py"\n' + CONSUMER)
    with pytest.raises(UsageError, match=r'Multiple consumers defined for queue "q": "a" and "c"; remove queues.consumers of'):
        check_together([one, two, three])
    with pytest.raises(UsageError, match="both have the name 'a'"):
        check_together([one, one])
