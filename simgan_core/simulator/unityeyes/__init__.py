"""UnityEyes without Unity: photo-textured eyes rendered from UnityEyes2's assets."""
