"""The record of a run, and what its fields may hold."""

from gated_bert.config.record import NOT_COMPUTED, GatedBertConfig
from gated_bert.support.checks import ConfigError

__all__ = ["NOT_COMPUTED", "ConfigError", "GatedBertConfig"]
