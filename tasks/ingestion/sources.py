"""Open the source that an ingestion input describes."""

from storage.sources.formats.arrays import ArraysSource
from storage.sources.formats.eye_gaze import EyeGazeSource
from storage.sources.formats.folder import FolderSource
from storage.sources.formats.mpiigaze import MPIIGazeSource
from storage.sources.formats.nyu_hand import NyuHandSource
from storage.sources.formats.syntheseyes import SynthesEyesSource
from storage.sources.formats.unityeyes import UnityEyesSource
from storage.sources.source import Source
from tasks.ingestion.inputs import (
    ArraysInput,
    EyeGazeInput,
    FolderInput,
    MPIIGazeInput,
    NyuHandInput,
    SourceInput,
    SynthesEyesInput,
    UnityEyesInput,
)


def open_source(given: SourceInput) -> Source:  # noqa: PLR0911  one for each format
    """List the files of a source; raises SourceError where they are missing or do not fit."""
    match given:
        case UnityEyesInput():
            size = (given.height, given.width)
            return UnityEyesSource(
                given.folder,
                size=size,
                crop=given.crop,
                channels=given.channels,
                head_limit_deg=given.head_limit_deg,
            )
        case SynthesEyesInput():
            size = (given.height, given.width)
            return SynthesEyesSource(given.folder, size=size, channels=given.channels)
        case EyeGazeInput():
            return EyeGazeSource(given.file, size=(given.height, given.width))
        case FolderInput():
            return FolderSource(
                given.folder, size=given.size, channels=given.channels, domain=given.domain
            )
        case NyuHandInput():
            return NyuHandSource(
                given.folder,
                labels=given.labels,
                size=(given.height, given.width),
                domain=given.domain,
                view=given.view,
            )
        case MPIIGazeInput():
            return MPIIGazeSource(
                given.folder,
                size=(given.height, given.width),
                subset=given.subset,
                people=list(given.people) if given.people else None,
            )
        case ArraysInput():
            return ArraysSource(
                given.file,
                images=given.images,
                gaze=given.gaze,
                gaze_pitchyaw=given.gaze_pitchyaw,
                y_up=given.y_up,
                pupil=given.pupil,
                id=given.id,
                person=given.person,
                domain=given.domain,
                size=given.size,
            )
