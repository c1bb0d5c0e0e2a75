from .diffusion import DiffusionMethod as DiffusionMethod
from .forget_retain import ForgetRetainMethod as ForgetRetainMethod
from .forget_retain import ReferenceRatioMethod as ReferenceRatioMethod
from .forget_retain import SequenceMethod as SequenceMethod
from .generated_images import GeneratedImages as GeneratedImages
from .generated_images import GeneratesImages as GeneratesImages
from .learned_noise import LearnsNoise as LearnsNoise
from .two_models import TwoModelMethod as TwoModelMethod
