import unittest

from tidemill_plugin.build import BuildError, world


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
            self.assertEqual(world(exports, modules), expected)
        with self.assertRaisesRegex(BuildError, "neither `Transformer"):
            world([], [])
