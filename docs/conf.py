"""The documentation site: the pages of this folder, made by `make docs`."""

project = "Polyvox"
html_title = "Polyvox"
extensions = ["myst_parser"]
root_doc = "index"
html_theme = "furo"
html_show_copyright = False
# Links to headings of a page, as GitHub has them: training.md#batches.
myst_heading_anchors = 4
nitpicky = True
exclude_patterns = ["_build"]
