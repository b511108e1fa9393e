"""The playground: a page on this computer where networks learn while one watches.

A leaf that uses only public names of xpnet. `settings`, `points` and `session` know nothing of the web, and
`digits` is the reader of drawn digits; `server` puts them behind addresses. The page itself is in `static/`.
"""

from .digits import DigitReader
from .server import serve
from .session import Session, Sessions
from .settings import Settings

__all__ = ["DigitReader", "Session", "Sessions", "Settings", "serve"]
