"""Clips of agents for the pages: drawn by replay when first asked for, for those who may see the item."""

import json
from functools import lru_cache
from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Depends, HTTPException, Path, Request, Response

from assent.clips import PictureClip, ShapeClip, draw_clip
from assent.labelling.users import User
from assent.records import Response as Item
from assent.segments import is_behaviour
from assent.store import schema
from assent.store.rows import row_to_task
from assent.web.security import SIGN_IN, CurrentProject, current_user
from assent.web.workspace import Project

router = APIRouter(tags=["clips"], include_in_schema=False)
ItemId = Annotated[str, Path(pattern=r"^[0-9a-f]{20}$")]
HEADERS = {"cache-control": "private, max-age=31536000, immutable"}
"""An id is a hash of the content, so a browser may keep a clip."""
MAX_CACHED = 256
"""Clips that each process of the server keeps in memory."""

_draw_clip = lru_cache(maxsize=MAX_CACHED)(draw_clip)


def any_user(request: Request) -> User:
    """Return the current user of any role; a script asks for clips, so it gets 401 without a session."""
    user = current_user(request)
    if user is None:
        raise HTTPException(401, SIGN_IN)
    return user


def clip_of(user: Annotated[User, Depends(any_user)], project: CurrentProject, item: ItemId) -> ShapeClip | PictureClip:
    """Return the clip of an item; raise 404 if there is none, or the user may not see it.

    Raises:
        AssentError: the item cannot be replayed.
    """
    response = next(iter(project.store.responses(ids=[item])), None)
    may_look = user.can("look") and user.state != "paused"
    if response is None or not (may_look or _is_assigned(project, user, response)):
        raise HTTPException(404, f"no clip {item} on your page")
    (prompt,) = project.store.prompts(ids=[response.prompt])
    if not is_behaviour(prompt):
        raise HTTPException(404, f"item {item} is a text, not a clip")
    return _draw_clip(prompt, response.text)


Clip = Annotated[ShapeClip | PictureClip, Depends(clip_of)]


def _is_assigned(project: Project, user: User, item: Item) -> bool:
    """Return whether a task about an item is, or was, on the page of a labeller."""
    tasks, assignments = schema.tasks, schema.assignments
    mine = sa.select(tasks).join(assignments, assignments.c.task == tasks.c.id)
    with project.store.reading() as connection:
        rows = connection.execute(mine.where(assignments.c.annotator == user.id, tasks.c.prompt == item.prompt)).all()
    return user.can("label") and any(item.id in row_to_task(row).items for row in rows)


@router.get("/r/{run}/clip/{item}.webp")
def sheet(clip: Clip) -> Response:
    """Return the frames of a clip of pictures on one sheet."""
    if not isinstance(clip, PictureClip):
        raise HTTPException(404, "this clip has no pictures")
    return Response(clip.sheet, media_type="image/webp", headers=HEADERS)


@router.get("/r/{run}/clip/{item}")
def clip(clip: Clip) -> Response:
    """Return a clip: its frames as shapes, or how its sheet is cut."""
    text = json.dumps(clip.to_json(), separators=(",", ":"))
    return Response(text, media_type="application/json", headers=HEADERS)
