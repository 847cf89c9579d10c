"""The app as gradio shows it: drop a file, choose a reference, check, map, read the page, take the files home.

It is bound to this machine unless told otherwise. Nothing is sent anywhere: the library's analytics, its check for new versions, its
sharing and its web fonts are off. Each visitor has a folder that is removed when the visitor leaves, and with the app.
"""

# No postponed annotations here: gradio looks at the types of its callbacks' arguments, which this module imports late.
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scgraft.app import visit
from scgraft.errors import MissingExtra, ScgraftError
from scgraft.files.text import visible

if TYPE_CHECKING:
    import gradio

SUFFIXES = [".h5ad", ".h5"]
# Seconds: how often copies of files that gradio keeps for download are looked for, and how old they become. An hour is
# enough to read the page first (chosen by eye, not measured).
CLEAN_EVERY, KEEP_COPIES = 600, 3600
# What a visitor may upload: 300,000 cells with 2,000 counts each, compressed (a judgement, not a measurement).
MOST_BYTES = 2 * 10**9
# Of the theme, what is too pale to read (WCAG: a contrast of 4.5), on white and on black.
READABLE = {
    "body_text_color_subdued": "*neutral_600", "body_text_color_subdued_dark": "*neutral_300",
    "button_primary_background_fill": "*primary_700", "button_primary_background_fill_hover": "*primary_800",
    "link_text_color": "*secondary_700", "link_text_color_dark": "*secondary_300",
    "link_text_color_visited": "*secondary_700", "link_text_color_visited_dark": "*secondary_300",
}  # fmt: skip
INTRODUCTION = """# Map your cells

Your file stays on the machine that runs this page, and is removed when you close it. Raw counts are needed."""


def build(references: Sequence[str] = (), *, folder: Path) -> "gradio.Blocks":
    """The app, not yet served.

    Parameters
    ----------
    references
        Repositories (``"org/name"``) or folders to offer. Visitors may also name a repository of the hub, and no folder.
    folder
        Where visitors' folders are made.

    Raises
    ------
    MissingExtra
        gradio is not installed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("GRADIO_TEMP_DIR", str(folder / "copies"))
    try:
        import gradio as gr
    except ImportError as error:
        raise MissingExtra("The app needs gradio, which is not installed: pip install 'scgraft[app]'.") from error

    offered = [str(source) for source in references]
    shown = gr.Progress()  # gradio finds the argument by this default

    def own_folder(request: gr.Request) -> Path:
        made = folder / "visitors" / str(request.session_hash)
        made.mkdir(parents=True, exist_ok=True)
        return made

    def arrived(upload: str | None, request: gr.Request) -> Any:
        kept = visit.keep_upload(upload, own_folder(request))
        choices, first = (
            ([visit.NO_BATCHES], visit.NO_BATCHES) if kept is None else _told(lambda: visit.batch_columns(kept))
        )
        return gr.update(choices=choices, value=first)

    def checked(source: str, batch: str, request: gr.Request, progress: gr.Progress = shown) -> str:
        def work() -> str:
            with visit.heard(lambda line: progress((0, None), desc=visible(line))):
                found = visit.check_query(
                    visit.kept_query(own_folder(request)), visit.source_of(source, offered), _batch(batch)
                )
            return visit.findings_html(found)

        return _told(work)

    def mapped(source: str, batch: str, request: gr.Request, progress: gr.Progress = shown) -> tuple[str, str, Any]:

        def work() -> visit.Results:
            with visit.heard(lambda line: progress((0, None), desc=visible(line))):
                return visit.map_query_file(
                    visit.kept_query(own_folder(request)),
                    visit.source_of(source, offered),
                    _batch(batch),
                    own_folder(request),
                )

        made = _told(work)
        files = gr.update(value=[str(path) for path in made.files], visible=True)
        return f"**{visible(made.sentence)}**", visit.framed(made.page), files

    def left(request: gr.Request) -> None:
        shutil.rmtree(folder / "visitors" / str(request.session_hash), ignore_errors=True)

    with gr.Blocks(title="scgraft", analytics_enabled=False, delete_cache=(CLEAN_EVERY, KEEP_COPIES)) as app:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            upload = gr.File(label="Cells (.h5ad, or a 10x .h5 file)", file_types=SUFFIXES, elem_id="query")
            with gr.Column():
                source = gr.Dropdown(
                    [(Path(name).name if Path(name).exists() else name, name) for name in offered],
                    value=offered[0] if offered else None, label="Reference", allow_custom_value=True,
                    info="One of the list, or the name of a repository: org/name", elem_id="reference",
                )  # fmt: skip
                batch = gr.Dropdown(
                    [visit.NO_BATCHES], value=visit.NO_BATCHES, label="Batches",
                    info="The column that says which cells were measured together", elem_id="batch",
                )  # fmt: skip
        with gr.Row():
            check_button = gr.Button("Check", elem_id="check")
            map_button = gr.Button("Map", variant="primary", elem_id="map")
        findings = gr.HTML(elem_id="check-result", padding=False)
        sentence = gr.Markdown(elem_id="verdict")
        files = gr.File(label="Take home", file_count="multiple", interactive=False, visible=False, elem_id="files")
        page = gr.HTML(elem_id="page")
        upload.change(arrived, upload, batch)
        check_button.click(checked, [source, batch], findings)
        map_button.click(mapped, [source, batch], [sentence, page, files])
        app.unload(left)
    return app


def serve(
    references: Sequence[str] = (),
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    max_bytes: int = MOST_BYTES,
    open_browser: bool = True,
) -> None:
    """Serve the app until it is interrupted; everything of the visitors is removed at the end.

    Parameters
    ----------
    references
        As for :func:`build`.
    host
        Address to bind to. The default is reached from this machine alone; ``"0.0.0.0"`` from everywhere.
    port
        None takes the first free one from 7860 on.
    max_bytes
        Larger uploads are refused.
    open_browser
        Open the app in a browser.
    """
    with tempfile.TemporaryDirectory(prefix="scgraft-app-") as home:
        app = build(references, folder=Path(home))
        app.queue(default_concurrency_limit=1).launch(**options(host, port, max_bytes), inbrowser=open_browser)


def options(host: str, port: int | None, max_bytes: int) -> dict[str, Any]:
    """How gradio is told to serve: bound to one address, no tunnel, no server of its own for pages, system fonts."""
    from gradio.themes import Base

    fonts = ["system-ui", "sans-serif"]
    return {
        "server_name": host,
        "server_port": port,
        "share": False,
        "max_file_size": max_bytes,
        "ssr_mode": False,
        "theme": Base(font=fonts, font_mono=["ui-monospace", "monospace"]).set(**READABLE),
        "footer_links": [],
        "quiet": True,
    }


def _batch(choice: str) -> str | None:
    return None if choice in (None, "", visit.NO_BATCHES) else choice


def _told(work: Any) -> Any:
    """What the work gives; an error of scgraft's own is shown to the visitor in its words."""
    import gradio as gr

    try:
        return work()
    except ScgraftError as error:
        raise gr.Error(visible(str(error)), duration=None, title=type(error).__name__) from error
