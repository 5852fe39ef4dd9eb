"""The three tiers of a KV cache."""

from enum import StrEnum

from kvsync_testkit.naming import unknown_name


class Tier(StrEnum):
    """Device, host and disk, as block managers name them."""

    G1 = "G1"
    """Device memory."""
    G2 = "G2"
    """Host memory."""
    G3 = "G3"
    """Disk."""

    @property
    def medium(self) -> str:
        """What events of this tier carry as their medium."""
        return {"G1": "GPU", "G2": "CPU", "G3": "STORAGE"}[self.value]

    @staticmethod
    def of(name: "Tier | str") -> "Tier":
        """The tier of this name.

        Raises:
            ConfigurationError: no tier has this name.
        """
        if name not in Tier.__members__:
            raise unknown_name("tier", str(name), Tier.__members__)
        return Tier(name)
