"""The table of views: what can be shown beside the verdict."""

from signstep.diagnosing import guides
from signstep.diagnosing.bench import Bench, TooDearError
from signstep.diagnosing.landscape import gradients, layers, loss
from signstep.diagnosing.stain import stain
from signstep.diagnosing.view import Shown, View, row_of, unseen
from signstep.errors import InputError, ModelError, VictimError
from signstep.importing import Spelling
from signstep.registry import Registry

_OWN = (loss.ROW, gradients.ROW, layers.ROW, stain.ROW, guides.ROW)

VIEWS: Registry[View] = Registry(
    "signstep.views",
    Spelling("the view", "View", "my_views:mine"),
    row_of,
    {view.id: view for view in _OWN},
    argument="show",
)


def shown(bench: Bench, name: str) -> Shown:
    """One view; where it cannot be made, a section that says why.

    Raises:
        InputError: there is no such view.
        VictimError: the model stopped answering.
    """
    view = VIEWS.find(name)
    if not bool(bench.right.any()):
        return unseen(view.title, "the model answers no example rightly")
    try:
        return view.run(bench)
    except VictimError:
        raise
    except (InputError, ModelError, TooDearError) as error:
        return unseen(view.title, str(error).rstrip("."))
