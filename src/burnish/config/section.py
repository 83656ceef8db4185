"""What every section of the schema of a run is: frozen, strict about its keys, documented field by field."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    is_value: ClassVar[bool] = False
    """Written as one value where it can be, so that its own keys are an alternative."""
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
