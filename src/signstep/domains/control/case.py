"""From a request to an audit of sensors: a closed loop, or recorded series."""

from signstep.domains.case import Case, Request
from signstep.domains.control.loop_case import loop_case
from signstep.domains.control.schema import Schema, read_schema
from signstep.domains.control.series_case import series_case


def case(request: Request) -> Case:
    """An audit of sensors and controllers.

    Without data: a closed loop, by default the shipped cart-pole. With data: a classifier of sensor series.

    Raises:
        InputError: schema, data and model do not fit each other.
        LoadError: a file cannot be read.
    """
    schema = Schema() if request.schema is None else read_schema(request.schema)
    return loop_case(request, schema) if request.data is None else series_case(request, schema)
