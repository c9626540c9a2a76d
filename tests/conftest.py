"""`import prunas` comes before any `import timm`, which may need what prunas declares."""

import prunas  # noqa: F401
