# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every task of every playbook and role: who gets a secret runs by the one action that writes it to no disk.

The walk follows secrets through variables: what an inventory names so, what modules return, and what tasks make of it.
"""

from __future__ import annotations

import importlib
import json
import re
import textwrap
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.module_utils import basic
from ansible.plugins.loader import action_loader
from ansible_collections.openisb.backup.plugins.module_utils.host.confidential import NAMES
from ansible_collections.openisb.backup.plugins.plugin_utils.confidential import ActionModule

ROOT = Path(__file__).parents[2]
OURS = "openisb.backup."
MODULES = sorted(path.stem for path in (ROOT / "plugins/modules").glob("[a-z]*.py"))

#: Variables of the inventory and of roles that hold a secret, but for those that say where one is or how it is used.
SECRET = re.compile(r"\b\w*(?:passphrase|password|psk|secret)\w*\b")
NOT_SECRET = re.compile(r"_file$|_by$|_folder$|^on_|_exposed_|public|^session_")

#: A variable in a template, with its attributes, and the filter or the test that comes next.
USE = re.compile(r"(?<![\w.])(\w+)((?:\.\w+|\[[^]]*\])*)(?:\s*\|\s*([\w.]+)|\s+(is)\b)?")
#: What returns the secrets of a repository; they are for one action group, all of whose modules take them.
LOOKUP = re.compile(r"lookup\('(openisb\.backup\.repository)'")
GROUP = "group/openisb.backup.repository"
#: Filters of this collection that make nothing secret of what has a secret in it.
WITHOUT_SECRETS = {"openisb.backup.failure_text", "openisb.backup.held_saveset", "openisb.backup.nbd_address"}

#: What runs on the controller alone and writes nothing: no module is sent anywhere.
BUILTIN = """
    assert debug fail import_playbook import_role import_tasks include_role include_tasks meta set_fact
"""
ON_CONTROLLER = {f"ansible.builtin.{name}" for name in BUILTIN.split()}
BLOCKS = ("block", "rescue", "always")
TASKS = ("tasks", "handlers", "pre_tasks", "post_tasks")
#: Keys of a task that are no action.
KEYWORDS = """
    name when register loop loop_control vars delegate_to until retries delay async poll timeout no_log tags
    ignore_unreachable ignore_errors failed_when changed_when check_mode notify environment become become_user
    any_errors_fatal module_defaults diff run_once throttle delegate_facts listen apply
"""

Task = dict[str, t.Any]


class ArgumentSpec(Exception):
    """Carries what a module told AnsibleModule of its options."""


def spec_of(module: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, t.Any]:
    """The argument_spec of a module of this collection; empty where an action alone does its work."""

    def tell(_self: t.Any, argument_spec: t.Any = None, **_others: t.Any) -> t.NoReturn:
        raise ArgumentSpec(argument_spec)

    found = importlib.import_module(f"ansible_collections.openisb.backup.plugins.modules.{module}")
    if not hasattr(found, "main"):
        return {}
    monkeypatch.setattr(basic.AnsibleModule, "__init__", tell)
    with pytest.raises(ArgumentSpec) as told:
        found.main()
    return t.cast(dict[str, t.Any], told.value.args[0])


def secret_options(spec: t.Mapping[str, t.Any], prefix: str = "") -> list[str]:
    """Names of the options with no_log, also of those within options."""
    found = []
    for name, option in spec.items():
        found += [prefix + name] if option.get("no_log") is True else []
        found += secret_options(option.get("options") or {}, f"{prefix}{name}.")
    return found


def takes_secrets(module: str) -> bool:
    """Whether the action of a module, by its full name, keeps secrets from disks, as Ansible itself resolves it."""
    found = action_loader.get(module, class_only=True) if action_loader.has_plugin(module) else None
    return found is not None and issubclass(found, ActionModule)


def tasks_in(node: t.Any) -> t.Iterator[Task]:
    """All tasks of a playbook or a file of tasks; a play and a block come as a task, too, for their variables."""
    for each in node or []:
        for key in (*TASKS, *BLOCKS):
            yield from tasks_in(each.get(key))
        for role in each.get("roles", []):
            yield {"ansible.builtin.include_role": role, "name": "role", "vars": role if isinstance(role, dict) else {}}
        if "hosts" in each or set(BLOCKS) & set(each):
            own = {key: each[key] for key in ("vars", "environment", "module_defaults") if key in each}
            yield {"ansible.builtin.meta": "noop", "name": each.get("name"), **own}
        else:
            yield each


def action_of(task: Task) -> str:
    """The full name of a task's action."""
    (action,) = set(task) - set(KEYWORDS.split())
    return str(action)


def secrets_in(value: t.Any, known: t.Collection[str]) -> set[str]:
    """The names of secret variables that the templates in a value mention.

    Of a known one no more than it must: an attribute that is no secret, a test of it, and what a filter that leaves
    secrets out makes of it, hold none.
    """
    text = " ".join(re.findall(r"{{.*?}}|{%.*?%}", json.dumps(value), re.DOTALL))
    # Names in quotes are what is looked up of something else by that name, so they count, too.
    named = {word for word in re.findall(r"\w+", text) if SECRET.fullmatch(word) and not NOT_SECRET.search(word)}
    named |= set(LOOKUP.findall(text))
    for name, attributes, next_filter, test in USE.findall(text):
        attribute = attributes and not attributes.startswith(".results")
        harmless = attribute or test or next_filter in WITHOUT_SECRETS
        named |= {name} if name in known and not harmless else set()
    return named


def given(task: Task) -> dict[str, t.Any]:
    """What reaches the host with a task: its arguments, and what its own variables make of them."""
    defaults = {name: value for name, value in task.get("module_defaults", {}).items() if name != GROUP}
    return {"arguments": task[action_of(task)], "vars": task.get("vars", {}), "defaults": defaults}


def returns_secrets(task: Task) -> bool:
    """Whether a task's module documents that it returns a secret, of something that is not just ended."""
    action = action_of(task)
    if not action.startswith(OURS) or (task[action] or {}).get("state") == "absent":
        return False
    source = (ROOT / "plugins/modules" / f"{action.removeprefix(OURS)}.py").read_text()
    told = re.search(r'^RETURN = r"""\n(.*?)"""', source, re.DOTALL | re.MULTILINE)
    return told is not None and bool(set(NAMES) & set(yaml.safe_load(told[1]) or {}))


def files_of(root: Path) -> list[Path]:
    """Every file with tasks."""
    places = ("playbooks/*.yml", "roles/*/tasks/**/*.yml", "roles/*/handlers/**/*.yml")
    return sorted(path for place in places for path in root.glob(place))


def tasks_of(root: Path) -> list[tuple[Path, Task]]:
    """Every task with its file; what a role sets by itself comes as a task that sets it."""
    found = [(path, task) for path in files_of(root) for task in tasks_in(yaml.safe_load(path.read_text()))]
    for path in sorted([*root.glob("roles/*/defaults/**/*.yml"), *root.glob("roles/*/vars/**/*.yml")]):
        found.append((path, {"ansible.builtin.meta": "noop", "vars": yaml.safe_load(path.read_text()) or {}}))
    return found


def made_secret(tasks: t.Sequence[Task]) -> set[str]:
    """The variables that tasks fill with a secret, as far as that goes."""
    known: set[str] = set()
    while True:
        before = len(known)
        for task in tasks:
            action = action_of(task)
            if returns_secrets(task) and task.get("register"):
                known.add(task["register"])
            facts = task[action] if action == "ansible.builtin.set_fact" else {}
            for name, value in {**facts, **(task.get("vars") or {})}.items():
                known |= {name} if secrets_in(value, known) else set()
        if len(known) == before:
            return known


def escaping(root: Path) -> list[str]:
    """What is wrong with the tasks below ``root``: for each a text that names file, task and cause."""
    tasks = tasks_of(root)
    known = made_secret([task for _path, task in tasks])
    found = []
    for path, task in tasks:
        where = f"{path.relative_to(root)}: {task.get('name')}"
        action, secrets = action_of(task), secrets_in(given(task), known)
        if secrets and action not in ON_CONTROLLER and not takes_secrets(action):
            found.append(f"{where}: {action} is given {', '.join(sorted(secrets))}")
        if secrets_in(task.get("environment"), known):
            found.append(f"{where}: its environment, which the host's process list shows, has a secret")
        shows = action in ("ansible.builtin.set_fact", "ansible.builtin.debug") and secrets_in(task[action], known)
        if (shows or (returns_secrets(task) and task.get("register"))) and not task.get("no_log"):
            found.append(f"{where}: its result shows a secret, and it has no no_log")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_module_with_a_secret_option_runs_by_the_one_action(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And only by names that the action knows, so that it can hand them over where a module runs asynchronously."""
    spec = spec_of(module, monkeypatch)
    secrets = secret_options(spec)
    assert set(secrets) <= set(NAMES)
    assert set(spec) & set(NAMES) <= set(secrets)
    assert not secrets or takes_secrets(OURS + module)
    assert all(spec[name]["fallback"][1][0] == name for name in secrets), "made by confidential.option()"


def test_no_task_escapes() -> None:
    assert escaping(ROOT) == []


def test_the_walk_sees_every_file_and_follows_secrets() -> None:
    """Else what it does not find would prove nothing."""
    tasks = [task for _path, task in tasks_of(ROOT)]
    assert len(files_of(ROOT)) > 80 and len(tasks) > 250
    written = sum(path.read_text().count("openisb.backup.saveset_info:") for path in files_of(ROOT))
    assert sum("openisb.backup.saveset_info" in task for task in tasks) == written > 2
    assert {
        "restore_psk",
        "restore_export",
        "snapshot_cloned",
        "snapshot_mapped",
        "idr_served",
        "idr_reached",
    } <= made_secret(tasks)
    assert not {"restore_address", "recover_done", "block_backup_savesets"} & made_secret(tasks)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {name: x, ansible.builtin.copy: {content: '{{ repository_passphrase }}', dest: /x}}", "copy is given"),
        (
            """
            - name: x
              ansible.builtin.shell: echo
              environment: {P: "{{ hostvars['b'].repository_passphrase }}"}
            """,
            "its environment",
        ),
        ("- {name: x, block: [], rescue: [], always: [{name: y, a.b.c: {k: '{{ x.psk }}'}, delegate_to: z}]}", "psk"),
        ("- {name: x, vars: {a: '{{ x.psk }}'}, block: [{name: y, a.b.c: {k: '{{ a }}'}}]}", "a.b.c is given a"),
        ("- {name: x, openisb.backup.nbd_export: {name: n}, register: made}", "has no no_log"),
        (
            """
            - {name: x, openisb.backup.nbd_export: {name: n}, register: made, no_log: true}
            - {name: y, ansible.builtin.set_fact: {other: '{{ made }}'}, no_log: true}
            - {name: z, ansible.builtin.command: {argv: ['{{ other | to_json }}']}}
            """,
            "command is given other",
        ),
        ("- {name: x, ansible.builtin.debug: {msg: '{{ ring_password }}'}}", "no_log"),
        ("- {hosts: all, vars: {}, handlers: [{name: y, a.b.c: {k: '{{ repository_passphrase }}'}}]}", "a.b.c"),
    ],
)
def test_a_task_that_escapes_is_found(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "playbooks/x.yml").write_text(textwrap.dedent(text))
    assert any(said in each for each in escaping(tmp_path)), escaping(tmp_path)
