import tempfile
import unittest
from pathlib import Path

from tidemill_plugin.build import BuildError, late_imports, world


class Worlds(unittest.TestCase):
    def test_the_world_is_the_smallest_that_has_what_is_imported(self) -> None:
        for exports, modules, expected in [
            (["Transformer"], [], "transform-pure"),
            (["Transformer"], ["tidemill_plugin.config", "tidemill_plugin._native.fake"], "transform-pure"),
            (["Transformer"], ["tidemill_plugin.state"], "transform"),
            (["Transformer"], ["tidemill_plugin.state", "tidemill_plugin.http"], "transform-http"),
            (["Dialler"], [], "connector"),
            (["Dialler"], ["tidemill_plugin.http"], "connector-http"),
        ]:
            self.assertEqual(world("plugin.py", exports, modules), expected)
        with self.assertRaisesRegex(BuildError, "^plugin.py has neither `Transformer"):
            world("plugin.py", [], [])


_LATE = """
import json

def early():
    import json
    import os.path
    from . import sibling

class Plugin:
    def process(self):
        from decimal import Decimal
        if self:
            import re
        try:
            import zlib
        except ImportError:
            zlib = None
"""


class LateImports(unittest.TestCase):
    def test_what_is_imported_first_within_a_function_is_found_by_its_line(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "plugin.py")
            file.write_text(_LATE)
            found = list(late_imports(file, ["json", "os.path"]))
        self.assertEqual(found, [(11, "decimal", "process"), (13, "re", "process")])
