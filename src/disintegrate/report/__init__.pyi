from .audit_page import render_audit
from .comparison import Comparison, compare, render_comparison
from .page import render, render_folder

__all__ = ["Comparison", "compare", "render", "render_audit", "render_comparison", "render_folder"]
