"""XML files, parsed without entities, which could fill the memory or read other files."""

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException, ElementTree

from ..structures import DataError


def parse_xml(path: Path, tag: str, fix: str, image_id: str | None = None) -> Element:
    """Parse an XML file and return its root element, which must have this tag; ``fix`` is the advice if it does not.

    Raises FileNotFoundError if there is no such file, and DataError, with the line if known, if it cannot be read.
    """

    def problem(what: str, fix: str = "write the file again", case: str = "bad-xml") -> DataError:
        return DataError(what, fix, case=case, file=path, image_id=image_id)

    try:
        root: Any = ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise
    except ParseError as error:
        line, column = error.position
        raise problem(f"not valid XML at line {line}, column {column + 1}: {str(error).partition(':')[0]}") from None
    except DefusedXmlException as error:
        what = f"declares XML entities ({type(error).__name__}), which can fill the memory or read other files"
        raise problem(what, "write the file without them", "unsafe-xml") from None
    except OSError as error:
        raise problem(f"cannot be read: {error.strerror}", "check the path", "unreadable-file") from error
    except (LookupError, ValueError) as error:  # an encoding that the parser does not support
        raise problem(f"the XML cannot be read: {error}", "save it as UTF-8") from None
    if root.tag != tag:
        raise problem(f"expected <{tag}> at the top, found <{root.tag}>", fix)
    return root
