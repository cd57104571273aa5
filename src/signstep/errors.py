"""Every error and warning that Signstep raises on purpose.

    SignstepError
    ├── InputError (ValueError)      an argument or a batch cannot be used as it is
    │   ├── ThreatError              norm, eps, box, mask or grid make no sense, alone or with this input
    │   ├── ScaleError               values lie outside the declared input space
    │   └── LabelError               labels or targets do not fit the model's outputs
    ├── ModelError (RuntimeError)    the model cannot be called, read or differentiated
    │   ├── GradientError            no differentiable path from the input to the output
    │   └── VictimError              a model outside this process stopped answering
    ├── LoadError (ValueError)       a file of weights or data cannot be used
    └── MissingExtraError (ImportError)   an optional package is needed

    SignstepWarning (UserWarning)    the work goes on, but the reader of the result should know

Each is a `signstep.messages.Message`: it names the argument, the value seen and the remedy, and has them as fields.
"""

from signstep.messages import Message


class SignstepError(Message, Exception):
    """Base of all errors raised by Signstep.

    As text it is one line in which nothing is hidden, whatever names of files, columns or tensors it quotes.

    Attributes:
        argument: the argument that is wrong, by its name in the API; None where it is none.
        value: what was seen of it.
        text: what is wrong, without the remedy.
        remedy: what to do.
    """


class InputError(SignstepError, ValueError):
    """An argument or a batch cannot be used as it is."""


class ThreatError(InputError):
    """Norm, eps, box, mask or grid make no sense, alone or together with this input."""


class ScaleError(InputError):
    """Values lie outside the declared input space."""


class LabelError(InputError):
    """Labels or targets do not fit the model's outputs."""


class ModelError(SignstepError, RuntimeError):
    """The model cannot be called, its output cannot be read, or it cannot be differentiated."""


class GradientError(ModelError):
    """There is no differentiable path from the input to the output."""


class VictimError(ModelError):
    """A model outside this process stopped answering; query attacks keep what they had found by then."""


class LoadError(SignstepError, ValueError):
    """A file of weights or data cannot be used."""


class MissingExtraError(SignstepError, ImportError):
    """An optional package is needed for this and is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs the package {package}", remedy=f"run pip install 'signstep[{extra}]'")


class SignstepWarning(Message, UserWarning):
    """The work goes on, but whoever reads the result should know."""
