"""The public API holds what users of `mixpanel_data` know."""

import ast
import difflib
import inspect
from dataclasses import MISSING, fields
from typing import get_args

import pytest

import mixpanel_assets
from mixpanel_assets import auth, errors
from mixpanel_assets.results import choices
from mixpanel_assets_tests import known_api, public_api
from mixpanel_assets_tests.client import test_live
from mixpanel_assets_tests.results import test_results

# What is not here, or is another way, and why; docs/compatibility.md tells users.
LEFT_OUT = {
    "signing in through a browser": "AuthMethod OAuthError",
    "workspace ids": "PublicWorkspace WorkspaceScopeError",
    "flows": "FlowsResult",
}
LEFT_OUT_METHODS = "list_workspaces resolve_workspace_id query_flows"
# What we offer on top of the parameters that users know.
ADDED = {
    "Workspace": "credentials settings storage on_wait max_wait_seconds _only_queries",
    "Workspace.open": "on_wait",
    "Workspace.ephemeral": "credentials settings on_wait max_wait_seconds",
    "Workspace.memory": "credentials settings on_wait max_wait_seconds",
    "Workspace.property_values": "property_of_event prop",
    "Workspace.fetch_events": "replace",
    "Workspace.fetch_profiles": "replace on_batch_complete",
    "Workspace.stream_events": "staged",
    "Workspace.sql": "values",
    "Workspace.sql_scalar": "values",
    "Workspace.sql_rows": "values",
    "Workspace.drop_all": "assets",
    "Workspace.segmentation": "type",
    "Workspace.funnel": "where length length_unit",
    "Workspace.retention": "retention_type unbounded",
    "Workspace.property_distribution": "table zone",
    "Workspace.numeric_summary": "table zone",
    "Workspace.daily_counts": "table zone",
    "Workspace.engagement_distribution": "table zone",
    "Workspace.property_coverage": "table zone",
    "ConfigManager.resolve_credentials": "project_id region",
    "ConfigManager.add_account": "default",
}
STUBS = {node.name: node.body for node in ast.parse(known_api.STUBS).body}
METHODS = [
    (name, node)
    for name, body in STUBS.items()
    for node in body
    if isinstance(node, ast.FunctionDef)
]
PROPERTIES = [
    f"{name}.{node.target.id}"
    for name, body in STUBS.items()
    for node in body
    if isinstance(node, ast.AnnAssign)
]


def parameters_of(node: ast.FunctionDef):
    """Return the names by position, the defaults by name, and the names that may be keywords."""
    asked = node.args
    positional = [argument.arg for argument in asked.args]
    static = any(ast.unparse(decorator) == "staticmethod" for decorator in node.decorator_list)
    positional = positional if static else positional[1:]
    defaults = dict(zip(reversed(positional), reversed(asked.defaults), strict=False)) | {
        argument.arg: default
        for argument, default in zip(asked.kwonlyargs, asked.kw_defaults, strict=True)
        if default is not None
    }
    names = [*positional, *(argument.arg for argument in asked.kwonlyargs)]
    return positional, names, {name: ast.literal_eval(value) for name, value in defaults.items()}


@pytest.mark.parametrize(
    ("owner", "node"), METHODS, ids=[f"{name}.{node.name}" for name, node in METHODS]
)
def test_methods_take_the_parameters_that_users_know(owner, node):
    """The same names, order and defaults; what is new is optional and listed."""
    label = owner if node.name == "__init__" else f"{owner}.{node.name}"
    signature = inspect.signature(getattr(getattr(mixpanel_assets, owner), node.name))
    ours = {name: p for name, p in signature.parameters.items() if name not in ("self", "cls")}
    positional, names, defaults = parameters_of(node)
    if node.args.vararg:
        assert ours.pop(node.args.vararg.arg).kind is inspect.Parameter.VAR_POSITIONAL
    assert [name for name in ours if name in names and name in positional] == positional
    for place, name in enumerate(positional):
        assert ours[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        assert list(ours)[place] == name
    for name in names:
        found = ours[name].default
        if name in defaults:
            assert found == defaults[name]
        elif label == "ConfigManager.add_account":
            assert found in (inspect.Parameter.empty, "us")  # the region may be left out
        elif label == "Workspace.property_values":
            assert found is None  # `event` and `prop` may say it all
        else:
            assert found is inspect.Parameter.empty
    added = [name for name in ours if name not in names]
    assert added == ADDED.get(label, "").split()
    assert all(ours[name].default is not inspect.Parameter.empty for name in added)


@pytest.mark.parametrize("name", PROPERTIES)
def test_properties_are_no_methods(name, credentials, settings):
    """They are read without parentheses."""
    owner, attribute = name.split(".")
    found = inspect.getattr_static(getattr(mixpanel_assets, owner), attribute, None)
    if found is None:
        with mixpanel_assets.Workspace(credentials=credentials, settings=settings) as ws:
            assert not callable(getattr(ws, attribute))
    else:
        assert inspect.isdatadescriptor(found) or hasattr(found, "func")


@pytest.mark.parametrize("name", known_api.FIELDS)
def test_results_of_fetches_have_the_fields_that_users_know(name):
    """In the same order; further ones come last."""
    kind = getattr(mixpanel_assets, name)
    found = [
        field.name + ("" if field.default is MISSING and field.default_factory is MISSING else "?")
        for field in fields(kind)
    ]
    known = known_api.FIELDS[name].split()
    assert found[: len(known)] == known
    assert kind.__dataclass_params__.frozen


def test_every_result_turns_into_json_and_many_into_frames():
    """`to_dict` everywhere, `df` where there is a table."""
    for name in (*test_results.FIELDS, *known_api.FIELDS):
        if name != "ProfilePageResult":
            assert callable(getattr(mixpanel_assets, name).to_dict)
    for name in known_api.WITH_FRAME:
        assert issubclass(getattr(mixpanel_assets, name), mixpanel_assets.ResultWithDataFrame)


@pytest.mark.parametrize("name", known_api.ERRORS)
def test_errors_are_made_and_carry_what_users_know(name):
    """The same arguments, code, attributes and place in the hierarchy."""
    base, code, (arguments, named), carried = known_api.ERRORS[name]
    kind = getattr(mixpanel_assets, name)
    assert issubclass(kind, getattr(errors, base, Exception))
    error = kind(*arguments, **named)
    assert error.code == code
    assert {key: getattr(error, key) for key in carried} == carried
    assert error.to_dict() == {
        "code": error.code,
        "message": error.message,
        "details": error.details,
    }


def test_every_error_of_the_package_is_public():
    """Every error class of the package is a public name."""
    own = {
        name
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.MixpanelDataError)
    }
    assert own <= set(mixpanel_assets.__all__)


def test_public_names_can_be_imported():
    """Each name of `__all__`, the services, and what the auth module is known for."""
    for name in mixpanel_assets.__all__:
        assert getattr(mixpanel_assets, name) is not None
    known = {*STUBS, *known_api.FIELDS, *known_api.ERRORS, *known_api.SERVICES}
    known |= {*test_results.FIELDS, *(kind.__name__ for kind in test_live.SIGNATURES)}
    assert known | {"normalize_event", "normalize_profile"} <= set(mixpanel_assets.__all__)
    for name in ("AccountInfo", "ConfigManager", "Credentials"):
        assert getattr(auth, name) is getattr(mixpanel_assets, name)
    for name, other in known_api.OTHER_NAMES.items():
        assert getattr(mixpanel_assets, name) is getattr(mixpanel_assets, other)


def test_what_is_public_changes_only_on_purpose():
    """Names, arguments, defaults, variables, codes and tables are those of `public_api.txt`."""
    before = public_api.SNAPSHOT.read_text().splitlines()
    changes = [line for line in difflib.ndiff(before, [*public_api.lines()]) if line[0] in "+-"]
    assert not changes, (
        "What users rely on has changed. If that is intended, describe it in CHANGELOG.md, let a "
        "former name warn for one version, and run: python -m mixpanel_assets_tests.public_api"
    )


def test_credentials_have_the_fields_that_users_know():
    """Frozen, the secret hidden, the region in lower case."""
    kind = mixpanel_assets.Credentials
    assert list(kind.model_fields) == ["username", "secret", "project_id", "region"]
    assert kind.model_config["frozen"]
    made = kind(username="u", secret="hidden", project_id="1", region="EU")
    assert made.region == "eu"
    assert "hidden" not in repr(made)


@pytest.mark.parametrize("name", known_api.CHOICES)
def test_words_to_choose_from_are_the_same(name):
    """As types, for annotations."""
    assert get_args(getattr(choices, name)) == known_api.CHOICES[name]


def test_what_is_left_out_is_left_out():
    """The list of what is not here is true."""
    for names in LEFT_OUT.values():
        for name in names.split():
            assert not hasattr(mixpanel_assets, name)
    for name in LEFT_OUT_METHODS.split():
        assert not hasattr(mixpanel_assets.Workspace, name)
