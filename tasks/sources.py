"""From what an ingestion is told to read to the source that reads it."""

from pathlib import Path

from storage.sources.arrays import ArraysSource
from storage.sources.mpiigaze import MPIIGazeSource
from storage.sources.source import Source
from storage.sources.unityeyes import UnityEyesSource
from tasks.inputs import ArraysInput, MPIIGazeInput, SourceInput, UnityEyesInput


def open_source(given: SourceInput) -> Source:
    """List the files of a source; raises SourceError where they are missing or do not fit."""
    match given:
        case UnityEyesInput():
            size = (given.height, given.width)
            return UnityEyesSource(Path(given.folder), size=size, crop=given.crop)
        case MPIIGazeInput():
            return MPIIGazeSource(
                Path(given.folder),
                size=(given.height, given.width),
                subset=given.subset,
                people=list(given.people) if given.people else None,
            )
        case ArraysInput():
            return ArraysSource(
                Path(given.file),
                images=given.images,
                gaze=given.gaze,
                gaze_pitchyaw=given.gaze_pitchyaw,
                y_up=given.y_up,
                pupil=given.pupil,
                id=given.id,
                domain=given.domain,
                size=given.size,
            )
