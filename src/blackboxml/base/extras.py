"""Optional packages, imported when they are needed, and what to install where they are not."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from blackboxml.errors import MissingDependencyError

if TYPE_CHECKING:
    from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Return a module of an optional package.

    Args:
        module: Its full name, such as `matplotlib.pyplot`.
        extra: The extra of this package that brings it.

    Raises:
        MissingDependencyError: If the package is not installed; names the command that installs it.
        ImportError: If the package is installed and lacks something itself.
    """
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or package).partition(".")[0] != package:
            raise
        message = f"{package} is not installed; install it with: pip install 'blackboxml[{extra}]'"
        raise MissingDependencyError(message, name=package) from None


def base_class(module: str, name: str) -> Any:
    """Return a class of an optional package to derive from.

    Where the package cannot be imported it is `object`, so that importing what derives from it
    works; making an instance has to `require` the package.
    """
    try:
        return getattr(import_module(module), name)
    except ImportError:
        return object
