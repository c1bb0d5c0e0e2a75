from .accuracy import Accuracy as Accuracy
from .accuracy import Errors as Errors
from .base import Evaluated as Evaluated
from .base import Suite as Suite
from .cost import Cost as Cost
from .curves import Curves as Curves
from .images.concepts import ConceptErasure as ConceptErasure
from .images.grids import Grids as Grids
from .images.quality import ImageQuality as ImageQuality
from .images.robustness import Robustness as Robustness
from .membership import Membership as Membership
from .membership import RegressionMembership as RegressionMembership
from .quantisation import Quantisation as Quantisation
from .relearning import Relearning as Relearning
from .results_writer import ResultsWriter as ResultsWriter
from .retrain_gap import RetrainGap as RetrainGap
from .text.examples import TextExamples as TextExamples
from .text.memorisation import Memorisation as Memorisation
from .text.memorisation import MemorisationReferenceCode as MemorisationReferenceCode
from .text.probes import LinearProbe as LinearProbe
from .text.probes import LogitLens as LogitLens
from .text.question_answer import QuestionAnswering as QuestionAnswering
from .text.reintroduction import Reintroduction as Reintroduction
from .text.tofu import TOFU as TOFU

default_callbacks: list[str]
