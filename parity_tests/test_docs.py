"""The pages: every link leads somewhere, every snippet runs, the README's claims have files."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import instep
from instep.parity import _tolerance
from instep.parity.diagnosis._ways import CATALOGUE
from loops import linear_mean


sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
sys.path.append(str(Path(__file__).parent.parent / "docs" / "_site"))
import links
import notebook_page
import readme
import reference
import tables

import claims_page
import ratios_page


ROOT = links.ROOT
SOURCES = [
    "README.md",
    "CONTRIBUTING.md",
    *(p.relative_to(ROOT).as_posix() for p in sorted((ROOT / "docs").glob("*.md"))),
    *(p.relative_to(ROOT).as_posix() for p in sorted((ROOT / "benchmarks").glob("*.md"))),
]
# Who runs the Python of a page.
RUN_BY = {
    "README.md": "test_readme.py",
    "docs/custom_gradients.md": "test_custom_gradients.py",
    "docs/gan.md": "test_gan.py",
    "docs/losses.md": "test_losses_page.py",
    "docs/precision.md": "test_docs.py",
}


def text_of(source: str) -> str:
    return (ROOT / source).read_text()


def dead(source: str, text: str) -> list[str]:
    """The links of a page that lead nowhere in the repository."""
    found = []
    for link in links.links(text):
        if links.is_external(link):
            continue
        path, anchor = links.target(link, source)
        there = ROOT / path
        if not there.exists():
            found.append(link)
        elif anchor:
            page = text if path == source else there.read_text()
            if anchor not in map(links.slug, links.headings(page)):
                found.append(link)
    return found


@pytest.mark.parametrize("source", SOURCES)
def test_links_lead_somewhere(source):
    assert dead(source, text_of(source)) == []


@pytest.mark.parametrize(
    "link",
    ["no_such_page.md", "docs/gan.md#no-such-heading", "#no-such-heading", "src/no_such.py"],
)
def test_a_dead_link_is_seen(link):
    assert dead("README.md", f"# A heading\n\n[a `page`\nof it]({link})\n") == [link]
    assert not dead("README.md", f"`[shown as code]({link})`\n\n```\n[this too]({link})\n```\n")


def test_there_are_links():
    assert sum(len(list(links.links(text_of(source)))) for source in SOURCES) >= 40


@pytest.mark.parametrize("source", SOURCES)
def test_somebody_runs_the_python_of_a_page(source):
    blocks = re.findall(r"^ *```python$", text_of(source), re.MULTILINE)
    assert bool(blocks) == (source in RUN_BY), "name the test that runs it in RUN_BY"
    if blocks and RUN_BY[source] != Path(__file__).name:
        runs = (Path(__file__).parent / RUN_BY[source]).read_text()
        assert "exec(" in runs


def test_precision():
    """Both lines of docs/precision.md: two steps whose parameters stay in float32."""
    (block,) = re.findall(r"```python\n(.*?)```", text_of("docs/precision.md"), re.DOTALL)
    loop = linear_mean()
    tx = instep.optim.sgd(0.1)
    names = {
        "instep": instep,
        "loop": loop,
        "tx": tx,
        "loss_fn": lambda params, x: (x @ params["w"]).astype(jnp.float32).mean(),
    }
    exec(block, names)
    state = instep.init_state({"w": jnp.ones((3, 1))}, tx)
    state, metrics = names["train_step"](state, np.ones((2, 3), np.float32))
    assert state.params["w"].dtype == metrics.loss.dtype == jnp.float32
    assert float(state.params["w"][0, 0]) == np.float32(0.9)


def test_the_numbers_of_the_rule_are_those_of_the_code():
    rows = re.findall(r"^\| `([A-Z_]+)` \| (\S+) \|", text_of("docs/parity.md"), re.MULTILINE)
    assert {name: float(value) for name, value in rows} == {
        name: value for name, value in vars(_tolerance).items() if name.isupper()
    }


def test_the_readme_has_the_numbers_of_the_rule():
    rule, said = _tolerance, " ".join(readme.SECTIONS['What "in step" means'].split())
    for sentence in (
        f"agree to {rule.RELATIVE:g} of its maximum",
        f"or to {rule.FLOOR_FACTOR:g} times its *floor*",
        f"within {rule.ROUNDING_FACTOR:g} times PyTorch's own",
        f"plus {rule.ROUNDING_ULPS:g} ulp",
        f"{('no', 'one', 'two', 'three')[rule.DRAWS]} copies of it",
    ):
        assert sentence in said, sentence


def test_the_statuses_are_those_of_the_code():
    text = text_of("docs/parity.md").partition("| status |")[2].partition("\n\n")[0]
    said = re.findall(r"^\| ([a-z ]+) \|", text, re.MULTILINE)
    assert sorted(said) == sorted(status.value for status in instep.parity.Status)


def test_every_section_of_the_readme_has_a_page():
    assert len(readme.anchors()) >= 12


# The claims.


def test_the_claims_are_what_their_files_say():
    text = text_of("README.md")
    assert claims_page.page(text) == text, "run: python benchmarks/claims_page.py"
    assert len(claims_page.CLAIMS) >= 12


def test_the_tables_of_the_benchmarks_are_what_their_files_say():
    text = text_of("benchmarks/README.md")
    assert ratios_page.page(text) == text, "run: python benchmarks/ratios_page.py"
    assert ratios_page.page(text.replace("| digits-mlp |", "| digits-cnn |")) == text


def test_a_claim_without_a_result_is_an_error(monkeypatch, tmp_path):
    claim = claims_page.CLAIMS[0]._replace(files=("benchmarks/results/none.json",))
    monkeypatch.setattr(claims_page, "CLAIMS", (claim,))
    with pytest.raises(FileNotFoundError):
        claims_page.table()


def test_another_number_is_another_table(monkeypatch):
    text = text_of("README.md")
    claim = claims_page.CLAIMS[1]
    kept = json.loads(text_of(claim.files[0]))
    plant = next(iter(kept["cnn"]))
    kept["cnn"][plant]["rank"] = 2
    assert claim.number(kept) not in text


# The site.


def test_the_kept_sites_are_of_the_catalogue():
    kept = json.loads(text_of("parity_tests/results/sites.json"))
    tried = set().union(*kept.values())
    assert set(kept) == {"cnn", "lstm", "transformer"}
    assert tried <= set(CATALOGUE) and len(tried) > len(CATALOGUE) / 2


def test_every_row_of_a_table_has_a_page_of_its_own():
    causes, rows = tables.causes_pages(), tables.dialects_pages()
    assert [page.key for page in causes] == list(CATALOGUE)
    assert len({page.page for page in rows}) == len({page.key for page in rows}) >= 90
    assert all(page.text.startswith("# ") for page in (*causes, *rows))


def test_a_notebook_is_shown_with_the_outputs_of_its_executed_copy(tmp_path, monkeypatch):
    path = ROOT / "notebooks" / "02_accumulation.ipynb"
    monkeypatch.setattr(notebook_page, "EXECUTED", tmp_path)
    assert "without its outputs" in notebook_page.shown(path, lambda used: None)
    executed = json.loads(path.read_text())
    cell = next(c for c in executed["cells"] if c["cell_type"] == "code")
    cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "what it printed"}]
    (tmp_path / path.name).write_text(json.dumps(executed))
    text = notebook_page.shown(path, lambda used: None)
    assert "what it printed" in text and "without its outputs" not in text


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built once, as ``make docs`` does; a warning is an error."""
    to = tmp_path_factory.mktemp("docs") / "site"
    quiet = {"NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(to)],
        cwd=ROOT,
        env={**os.environ, **quiet},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return to


@pytest.mark.exhaustive
def test_the_site_loads_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) >= 230
    for page in pages:
        tags = re.findall(r"<(?:script|link|img)\b[^>]*>", page.read_text())
        loaded = [tag for tag in tags if re.search(r"(?:src|href)=\"?https?:", tag)]
        assert not loaded, f"{page.name} loads {loaded}"


@pytest.mark.exhaustive
@pytest.mark.parametrize("room", reference.ROOMS)
def test_the_reference_has_every_public_name_once(site, room):
    html = (site / "api" / f"{room}.html").read_text()
    names = reference.public(room)
    assert names
    for name in names:
        here = len(re.findall(rf"<h[23] id=\"?{re.escape(room)}\.{name}[\" >]", html))
        elsewhere = bool(re.search(rf"instep\.html#instep\.{name}[\">]", html))
        assert here + (not here and elsewhere) == 1, name
