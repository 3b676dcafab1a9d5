"""Compiled loops of the UnityEyes simulator: rasterise, shade, draw lashes and glasses.

Needs numba. Everything is in the camera's frame, millimetres, x right, y down, z into the scene,
the camera at the origin; pictures are of samples (several a pixel each way), light is linear, a
display's gamma is taken as 2. A kernel releases the interpreter's lock and uses one core: threads
or processes render images in parallel, and the bits do not depend on their number.

All kernels are in one module: numba's cache of a function checks the date of its own file only, so
that a change of a kernel in another file would go unnoticed.
"""

import numpy as np
from numba import njit

from simgan_core.simulator.unityeyes.eyeball import (
    CORNEA_CENTRE_MM,
    CORNEA_EDGE_DEPTH_MM,
    CORNEA_EDGE_MM,
    CORNEA_RADIUS_MM,
    IRIS_DEPTH_MM,
    SCLERA_RADIUS_MM,
    TEXTURE_IRIS_MM,
    TEXTURE_PER_MM,
    TEXTURE_PUPIL_MM,
)
from simgan_core.simulator.unityeyes.spectacles import LEAST_STRETCH

SKIN, SCLERA, IRIS, PUPIL = 0, 1, 2, 3
"""Class of a sample; 255 is background."""

_SHADOW_PX, _SHADOW_MM = 96, 32.0
"""Side of a light's depth map, in texels, and half of it in mm."""
_AMBIENT_PX = 48
_COARSE = 4
"""Samples between the places at which the eye's ambient light is computed."""
_NUM_COARSE = 6
"""Numbers kept at each: light, share of the sky, distances to the upper and lower lid."""
_CLEAR_MM = 7.2
"""The conjunctiva lies over what is farther than this from the optical axis."""
_BULGE_MM = 3.0
"""The eye is in sight at most so far outside the outline of the lids' opening."""
_FAR = 1e9

compiled = njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
# Without reference counts of arrays, which took more than half of a picture's time: makes none. An
# option that numba's stubs leave out.
inner = njit(  # type: ignore[call-overload]
    cache=True, nogil=True, fastmath=True, error_model="numpy", _nrt=False
)
inlined = njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")


@inner
def _rasterise(x, y, z, triangles, depth, owner, first, second):  # type: ignore[no-untyped-def]
    """Keep the nearest triangle of every sample, with two barycentric coordinates."""
    height, width = depth.shape
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, bx, by, cx, cy = x[i], y[i], x[j], y[j], x[k], y[k]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(area) < 1e-7:
            continue
        left = max(int(np.ceil(min(ax, bx, cx) - 0.5)), 0)
        right = min(int(np.floor(max(ax, bx, cx) - 0.5)), width - 1)
        top = max(int(np.ceil(min(ay, by, cy) - 0.5)), 0)
        bottom = min(int(np.floor(max(ay, by, cy) - 0.5)), height - 1)
        inverse = 1 / area
        u_x, v_x = (by - cy) * inverse, (cy - ay) * inverse
        z_x = u_x * (z[i] - z[k]) + v_x * (z[j] - z[k])
        for row in range(top, bottom + 1):
            py = row + 0.5
            px = left + 0.5
            u = ((bx - px) * (cy - py) - (by - py) * (cx - px)) * inverse
            v = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) * inverse
            d = u * z[i] + v * z[j] + (1 - u - v) * z[k]
            for column in range(left, right + 1):
                if u >= -1e-5 and v >= -1e-5 and u + v <= 1.00001 and d < depth[row, column]:
                    depth[row, column] = d
                    owner[row, column] = t
                    first[row, column] = u
                    second[row, column] = v
                u += u_x
                v += v_x
                d += z_x


@inner
def _depth_map(x, y, z, triangles, depth):  # type: ignore[no-untyped-def]
    """Keep the nearest depth of every texel."""
    height, width = depth.shape
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, bx, by, cx, cy = x[i], y[i], x[j], y[j], x[k], y[k]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(area) < 1e-7:
            continue
        left = max(int(np.ceil(min(ax, bx, cx) - 0.5)), 0)
        right = min(int(np.floor(max(ax, bx, cx) - 0.5)), width - 1)
        top = max(int(np.ceil(min(ay, by, cy) - 0.5)), 0)
        bottom = min(int(np.floor(max(ay, by, cy) - 0.5)), height - 1)
        if left > right or top > bottom:
            continue
        inverse = 1 / area
        u_x, v_x = (by - cy) * inverse, (cy - ay) * inverse
        z_x = u_x * (z[i] - z[k]) + v_x * (z[j] - z[k])
        for row in range(top, bottom + 1):
            py = row + 0.5
            px = left + 0.5
            u = ((bx - px) * (cy - py) - (by - py) * (cx - px)) * inverse
            v = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) * inverse
            d = u * z[i] + v * z[j] + (1 - u - v) * z[k]
            for column in range(left, right + 1):
                if u >= -1e-5 and v >= -1e-5 and u + v <= 1.00001 and d < depth[row, column]:
                    depth[row, column] = d
                u += u_x
                v += v_x
                d += z_x


@compiled
def _light_map(mesh, origin, direction, bases, index, side_px, out):  # type: ignore[no-untyped-def]
    """Render the depth map of the skin as a far light sees it; fills its basis [3, 3]."""
    dx, dy, dz = direction[0], direction[1], direction[2]
    # Any direction that no light has.
    ux, uy, uz = dz - 0.2 * dy, 0.2 * dx - 0.3 * dz, 0.3 * dy - dx
    norm = 1 / np.sqrt(ux * ux + uy * uy + uz * uz)
    ux *= norm
    uy *= norm
    uz *= norm
    vx, vy, vz = dy * uz - dz * uy, dz * ux - dx * uz, dx * uy - dy * ux
    basis = bases[index]
    basis[0, 0], basis[0, 1], basis[0, 2] = ux, uy, uz
    basis[1, 0], basis[1, 1], basis[1, 2] = vx, vy, vz
    basis[2, 0], basis[2, 1], basis[2, 2] = dx, dy, dz
    n = mesh.vertices.shape[0]
    x, y, z = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    scale = side_px / (2 * _SHADOW_MM)
    for i in range(n):
        px = mesh.vertices[i, 0] - origin[0]
        py = mesh.vertices[i, 1] - origin[1]
        pz = mesh.vertices[i, 2] - origin[2]
        x[i] = (px * ux + py * uy + pz * uz) * scale + side_px / 2
        y[i] = (px * vx + py * vy + pz * vz) * scale + side_px / 2
        z[i] = -(px * dx + py * dy + pz * dz)
    out[:] = _FAR
    _depth_map(x, y, z, mesh.triangles, out)


@inner
def _seen(maps, k, a, b, d):  # type: ignore[no-untyped-def]
    """Share of four texels round a place of map k that depth d is not behind."""
    side = maps.shape[1]
    share = 1.0
    if a >= 0 and b >= 0 and a < side - 1 and b < side - 1:
        # Unsigned numbers need no check for negative ones, which count from the end.
        column, row = np.uint64(a), np.uint64(b)
        one = np.uint64(1)
        fa, fb = a - np.float64(column), b - np.float64(row)
        near = 1 - fa if d <= maps[k, row, column] else 0.0
        if d <= maps[k, row, column + one]:
            near += fa
        far = 1 - fa if d <= maps[k, row + one, column] else 0.0
        if d <= maps[k, row + one, column + one]:
            far += fa
        share = near + (far - near) * fb
    return share


@inner
def _lit(maps, bases, k, px, py, pz, bias):  # type: ignore[no-untyped-def]
    """Share of light k that reaches a point, between four texels (percentage-closer filtering)."""
    side = np.int64(maps.shape[1])
    scale = side / (2 * _SHADOW_MM)
    a = (px * bases[k, 0, 0] + py * bases[k, 0, 1] + pz * bases[k, 0, 2]) * scale + side / 2 - 0.5
    b = (px * bases[k, 1, 0] + py * bases[k, 1, 1] + pz * bases[k, 1, 2]) * scale + side / 2 - 0.5
    d = -(px * bases[k, 2, 0] + py * bases[k, 2, 1] + pz * bases[k, 2, 2]) - bias
    return _seen(maps, k, a, b, d)


@inlined
def _soft_lit(maps, bases, k, px, py, pz, bias, spread):  # type: ignore[no-untyped-def]
    """Share of an area light k: the mean of `_lit` at four points, `spread` mm apart."""
    side = np.int64(maps.shape[1])
    scale = side / (2 * _SHADOW_MM)
    a = (px * bases[k, 0, 0] + py * bases[k, 0, 1] + pz * bases[k, 0, 2]) * scale + side / 2 - 0.5
    b = (px * bases[k, 1, 0] + py * bases[k, 1, 1] + pz * bases[k, 1, 2]) * scale + side / 2 - 0.5
    d = -(px * bases[k, 2, 0] + py * bases[k, 2, 1] + pz * bases[k, 2, 2]) - bias
    step = spread * scale
    return 0.25 * (
        _seen(maps, k, a + step, b, d)
        + _seen(maps, k, a - step, b, d)
        + _seen(maps, k, a, b + step, d)
        + _seen(maps, k, a, b - step, d)
    )


@inlined
def _texel(texture, u, v, out):  # type: ignore[no-untyped-def]
    """Grey levels of a texture at u right, v down, bilinear, in 0 to 1."""
    side = texture.shape[0]
    a = min(max(u * side - 0.5, 0.0), side - 1.001)
    b = min(max(v * side - 0.5, 0.0), side - 1.001)
    x, y, one = np.uint64(a), np.uint64(b), np.uint64(1)
    fa, fb = a - np.float64(x), b - np.float64(y)
    w11 = fa * fb
    w01, w10 = fa - w11, fb - w11
    w00 = 1 - fa - w10
    for c in range(3):
        out[c] = (
            texture[y, x, c] * w00
            + texture[y, x + one, c] * w01
            + texture[y + one, x, c] * w10
            + texture[y + one, x + one, c] * w11
        ) * (1 / 255.0)


@inner
def _distance(px, py, pz, line):  # type: ignore[no-untyped-def]
    """Distance of a point from a polyline [n, 3]."""
    best = _FAR
    for i in range(line.shape[0] - 1):
        ax, ay, az = line[i, 0], line[i, 1], line[i, 2]
        dx, dy, dz = line[i + 1, 0] - ax, line[i + 1, 1] - ay, line[i + 1, 2] - az
        ax, ay, az = px - ax, py - ay, pz - az
        along = (ax * dx + ay * dy + az * dz) / (dx * dx + dy * dy + dz * dz + 1e-9)
        along = min(max(along, 0.0), 1.0)
        ax, ay, az = ax - along * dx, ay - along * dy, az - along * dz
        best = min(best, ax * ax + ay * ay + az * az)
    return np.sqrt(best)


@inner
def _through_lens(camera, glasses, through):  # type: ignore[no-untyped-def]
    """Mark samples whose rays pass a lens that bends light, bool [H, W]."""
    if glasses.power == 0:
        return
    ax, centre = glasses.axes, glasses.centre
    offset = centre[0] * ax[2, 0] + centre[1] * ax[2, 1] + centre[2] * ax[2, 2]
    for row in range(camera.height):
        for column in range(camera.width):
            dx = (column + 0.5 - camera.cx) / camera.focal
            dy = (row + 0.5 - camera.cy) / camera.focal
            t = offset / (dx * ax[2, 0] + dy * ax[2, 1] + ax[2, 2])
            px, py, pz = dx * t - centre[0], dy * t - centre[1], t - centre[2]
            u = abs(px * ax[0, 0] + py * ax[0, 1] + pz * ax[0, 2]) / glasses.half_size[0]
            v = abs(px * ax[1, 0] + py * ax[1, 1] + pz * ax[1, 2]) / glasses.half_size[1]
            if u < 1 and v < 1:
                through[row, column] = u**glasses.exponent + v**glasses.exponent < 1


@inner
def _ray(camera, glasses, through, row, column):  # type: ignore[no-untyped-def]
    """Unit direction and origin of a sample's ray, behind the lens where it passes `through` it."""
    dx = (column + 0.5 - camera.cx) / camera.focal
    dy = (row + 0.5 - camera.cy) / camera.focal
    dz = 1 / np.sqrt(dx * dx + dy * dy + 1)
    dx *= dz
    dy *= dz
    if not through:
        return dx, dy, dz, 0.0, 0.0, 0.0
    ax, o = glasses.axes, glasses.optical_centre
    facing = dx * ax[2, 0] + dy * ax[2, 1] + dz * ax[2, 2]
    t = (o[0] * ax[2, 0] + o[1] * ax[2, 1] + o[2] * ax[2, 2]) / facing
    px, py, pz = dx * t, dy * t, dz * t
    dx = dx / facing - glasses.power * (px - o[0])
    dy = dy / facing - glasses.power * (py - o[1])
    dz = dz / facing - glasses.power * (pz - o[2])
    norm = 1 / np.sqrt(dx * dx + dy * dy + dz * dz)
    return dx * norm, dy * norm, dz * norm, px, py, pz


@inner
def _project(camera, glasses, lens, points, x, y):  # type: ignore[no-untyped-def]
    """Compute the samples' coordinates of points [n, 3], or of what the lens shows of them."""
    ax, o = glasses.axes, glasses.optical_centre
    for i in range(points.shape[0]):
        px, py, pz = points[i, 0], points[i, 1], points[i, 2]
        if lens:
            px, py, pz = px - o[0], py - o[1], pz - o[2]
            behind = max(px * ax[2, 0] + py * ax[2, 1] + pz * ax[2, 2], 0.0)
            stretch = 1 / max(1 - glasses.power * behind, LEAST_STRETCH)
            px, py, pz = o[0] + px * stretch, o[1] + py * stretch, o[2] + pz * stretch
        x[i] = camera.cx + camera.focal * px / pz
        y[i] = camera.cy + camera.focal * py / pz


@inner
def _hit_conjunctiva(dx, dy, dz, ox, oy, oz, eye, hit):  # type: ignore[no-untyped-def]
    """Follow a ray to the conjunctiva's capsule beyond the eyeball: its distance, or −1."""
    cx, cy, cz = eye.centre[0] - ox, eye.centre[1] - oy, eye.centre[2] - oz
    tx, ty, tz = eye.temple[0], eye.temple[1], eye.temple[2]
    # The cylinder, of what is across its axis.
    ray, middle = dx * tx + dy * ty + dz * tz, cx * tx + cy * ty + cz * tz
    ax, ay, az = dx - ray * tx, dy - ray * ty, dz - ray * tz
    ex, ey, ez = cx - middle * tx, cy - middle * ty, cz - middle * tz
    a, b = ax * ax + ay * ay + az * az, ax * ex + ay * ey + az * ez
    root = b * b - a * (ex * ex + ey * ey + ez * ez - SCLERA_RADIUS_MM * SCLERA_RADIUS_MM)
    t, along = -1.0, 0.0
    if root > 0 and a > 1e-9:
        t = (b - np.sqrt(root)) / a
        along = t * ray - middle
    if t < 0 or along > eye.conjunctiva:
        along = eye.conjunctiva
        ex, ey, ez = cx + tx * along, cy + ty * along, cz + tz * along
        b = dx * ex + dy * ey + dz * ez
        root = b * b - (ex * ex + ey * ey + ez * ez) + SCLERA_RADIUS_MM * SCLERA_RADIUS_MM
        if root <= 0:
            return -1.0
        t = b - np.sqrt(root)
    if along <= 0:
        return -1.0
    hit[0], hit[1], hit[2] = dx * t + ox, dy * t + oy, dz * t + oz
    hit[3] = (dx * t - cx - tx * along) / SCLERA_RADIUS_MM
    hit[4] = (dy * t - cy - ty * along) / SCLERA_RADIUS_MM
    hit[5] = (dz * t - cz - tz * along) / SCLERA_RADIUS_MM
    hit[6] = -1.0
    return t


@inlined
def _hit_eye(dx, dy, dz, ox, oy, oz, eye, limit, hit):  # type: ignore[no-untyped-def]
    """Follow a ray from its origin to the eyeball or the conjunctiva: its distance, or −1.

    What lies farther than limit is left out, but for the iris, which is counted where lids hide it.
    hit: the point (3), the normal (3), and 1 where it is on the cornea, −1 on the conjunctiva.
    """
    cx, cy, cz = eye.centre[0] - ox, eye.centre[1] - oy, eye.centre[2] - oz
    gx, gy, gz = eye.axes[2, 0], eye.axes[2, 1], eye.axes[2, 2]
    on_sclera, on_cornea = _FAR, _FAR
    along = dx * cx + dy * cy + dz * cz
    root = along * along - (cx * cx + cy * cy + cz * cz) + SCLERA_RADIUS_MM * SCLERA_RADIUS_MM
    if root > 0:
        on_sclera = along - np.sqrt(root)
    ex, ey = cx + gx * CORNEA_CENTRE_MM, cy + gy * CORNEA_CENTRE_MM
    ez = cz + gz * CORNEA_CENTRE_MM
    along = dx * ex + dy * ey + dz * ez
    root = along * along - (ex * ex + ey * ey + ez * ez) + CORNEA_RADIUS_MM * CORNEA_RADIUS_MM
    if root > 0:
        t = along - np.sqrt(root)
        depth = (dx * t - cx) * gx + (dy * t - cy) * gy + (dz * t - cz) * gz
        if depth > CORNEA_EDGE_DEPTH_MM:
            on_cornea = t
    t = min(on_sclera, on_cornea)
    if t > 1e8:
        # A ray that passes the eyeball on the nose's side passes the conjunctiva, too.
        nearest = dx * cx + dy * cy + dz * cz
        px, py, pz = dx * nearest - cx, dy * nearest - cy, dz * nearest - cz
        to_temple = px * eye.temple[0] + py * eye.temple[1] + pz * eye.temple[2]
        if eye.conjunctiva > 0 and to_temple > 0:
            return _hit_conjunctiva(dx, dy, dz, ox, oy, oz, eye, hit)
        return -1.0
    px, py, pz = dx * t, dy * t, dz * t
    qx, qy, qz = px - cx, py - cy, pz - cz
    depth = qx * gx + qy * gy + qz * gz
    radius = np.sqrt(max(qx * qx + qy * qy + qz * qz - depth * depth, 0.0))
    outside = depth < 0 or radius > _CLEAR_MM
    # The conjunctiva lies over the eyeball's side, but hides no iris that looks there.
    to_temple = qx * eye.temple[0] + qy * eye.temple[1] + qz * eye.temple[2]
    if eye.conjunctiva > 0 and to_temple > 0 and outside:
        over = _hit_conjunctiva(dx, dy, dz, ox, oy, oz, eye, hit)
        if over > 0:
            return over
    if t > limit and outside:
        return -1.0
    # The limbus is rounded: the normal goes over from one sphere's to the other's.
    k = min(max((CORNEA_EDGE_MM + 0.7 - radius) / 1.4, 0.0), 1.0)
    k = k * k * (3 - 2 * k) if depth > 0 else 0.0
    nx = qx / SCLERA_RADIUS_MM * (1 - k) + (px - ex) / CORNEA_RADIUS_MM * k
    ny = qy / SCLERA_RADIUS_MM * (1 - k) + (py - ey) / CORNEA_RADIUS_MM * k
    nz = qz / SCLERA_RADIUS_MM * (1 - k) + (pz - ez) / CORNEA_RADIUS_MM * k
    norm = 1 / np.sqrt(nx * nx + ny * ny + nz * nz)
    hit[0], hit[1], hit[2] = px + ox, py + oy, pz + oz
    hit[3], hit[4], hit[5] = nx * norm, ny * norm, nz * norm
    hit[6] = 1.0 if on_cornea <= on_sclera else 0.0
    return t


@inlined
def _on_iris(dx, dy, dz, eye, hit, out):  # type: ignore[no-untyped-def]
    """Compute the point seen by a ray that met the eye, in mm along its right and down axes.

    Through the cornea that is a point of the iris' plane, elsewhere the point met.
    """
    gx, gy, gz = eye.axes[2, 0], eye.axes[2, 1], eye.axes[2, 2]
    px, py, pz = hit[0] - eye.centre[0], hit[1] - eye.centre[1], hit[2] - eye.centre[2]
    if hit[6] > 0.5:
        nx, ny, nz = hit[3], hit[4], hit[5]
        ratio = 1 / eye.refractive_index
        cosine = -(dx * nx + dy * ny + dz * nz)
        root = 1 - ratio * ratio * (1 - cosine * cosine)
        if root > 0:
            s = ratio * cosine - np.sqrt(root)
            rx, ry, rz = dx * ratio + nx * s, dy * ratio + ny * s, dz * ratio + nz * s
            height = px * gx + py * gy + pz * gz - IRIS_DEPTH_MM
            fall = -(rx * gx + ry * gy + rz * gz)
            if height > 0 and fall > 0.05:
                t = height / fall
                px, py, pz = px + rx * t, py + ry * t, pz + rz * t
    out[0] = px * eye.axes[0, 0] + py * eye.axes[0, 1] + pz * eye.axes[0, 2]
    out[1] = px * eye.axes[1, 0] + py * eye.axes[1, 1] + pz * eye.axes[1, 2]
    if hit[6] < 0:
        # No iris on the conjunctiva.
        radius = np.sqrt(out[0] * out[0] + out[1] * out[1])
        if radius < _CLEAR_MM:
            out[0] *= _CLEAR_MM / radius
            out[1] *= _CLEAR_MM / radius


@inlined
def _mirrored(lights, rx, ry, rz, blur, light, out):  # type: ignore[no-untyped-def]
    """Add the window `light` as a mirror shows it in a direction, its edges blurred."""
    front = rx * lights.direction[light, 0] + ry * lights.direction[light, 1]
    front += rz * lights.direction[light, 2]
    share = 0.0
    if front > 0.05:
        a = rx * lights.right[light, 0] + ry * lights.right[light, 1] + rz * lights.right[light, 2]
        b = rx * lights.down[light, 0] + ry * lights.down[light, 1] + rz * lights.down[light, 2]
        a = abs(a) / front / lights.half_size[light, 0]
        b = abs(b) / front / lights.half_size[light, 1]
        share = min(max((1 + blur - max(a, b)) / (2 * blur), 0.0), 1.0)
        if lights.bars[light] and (a < 0.1 or b < 0.08):
            share *= 0.35
    for c in range(3):
        out[c] = lights.radiance[light, c] * share


@compiled
def _vertex_normals(vertices, triangles):  # type: ignore[no-untyped-def]
    """Unit normals [V, 3] that face the camera side of the skin."""
    n = np.zeros(vertices.shape, np.float64)
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, az = (
            vertices[j, 0] - vertices[i, 0],
            vertices[j, 1] - vertices[i, 1],
            vertices[j, 2] - vertices[i, 2],
        )
        bx, by, bz = (
            vertices[k, 0] - vertices[i, 0],
            vertices[k, 1] - vertices[i, 1],
            vertices[k, 2] - vertices[i, 2],
        )
        nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        for v in (i, j, k):
            n[v, 0] += nx
            n[v, 1] += ny
            n[v, 2] += nz
    towards = 0
    for v in range(len(n)):
        norm = 1 / max(np.sqrt(n[v, 0] ** 2 + n[v, 1] ** 2 + n[v, 2] ** 2), 1e-12)
        for c in range(3):
            n[v, c] *= norm
        towards += 1 if n[v, 2] < 0 else -1
    if towards < 0:
        n *= -1
    return n


@inner
def _surroundings(  # type: ignore[no-untyped-def]
    dx, dy, dz, ox, oy, oz, eye, mesh, lights, maps, bases, hit, out
):
    """Compute the ambient light on the eyeball and the distances to its lids along a ray."""
    out[:] = 0
    if _hit_eye(dx, dy, dz, ox, oy, oz, eye, _FAR, hit) < 0:
        return
    px, py, pz = (
        hit[0] - lights.origin[0],
        hit[1] - lights.origin[1],
        hit[2] - lights.origin[2],
    )
    seen, total = 0.0, 1e-6
    for k in range(lights.ambient_direction.shape[0]):
        cosine = (
            hit[3] * lights.ambient_direction[k, 0]
            + hit[4] * lights.ambient_direction[k, 1]
            + hit[5] * lights.ambient_direction[k, 2]
            + 0.1
        ) / 1.1
        if cosine <= 0:
            continue
        total += cosine
        share = _lit(maps, bases, k, px, py, pz, 0.5) * cosine
        seen += share
        for c in range(3):
            out[c] += lights.ambient_colour[k, c] * share
    out[3] = seen / total
    out[4] = _distance(hit[0], hit[1], hit[2], mesh.upper)
    out[5] = _distance(hit[0], hit[1], hit[2], mesh.lower)


@inner
def _vertex_ambient(mesh, normals, lights, maps, bases, light):  # type: ignore[no-untyped-def]
    """Add ambient light at the skin's vertices [V, 3], with what the skin itself hides."""
    for i in range(mesh.vertices.shape[0]):
        nx, ny, nz = normals[i, 0], normals[i, 1], normals[i, 2]
        px = mesh.vertices[i, 0] - lights.origin[0] + 0.6 * nx
        py = mesh.vertices[i, 1] - lights.origin[1] + 0.6 * ny
        pz = mesh.vertices[i, 2] - lights.origin[2] + 0.6 * nz
        for k in range(lights.ambient_direction.shape[0]):
            cosine = (
                nx * lights.ambient_direction[k, 0]
                + ny * lights.ambient_direction[k, 1]
                + nz * lights.ambient_direction[k, 2]
                + 0.18
            ) / 1.18
            if cosine <= 0:
                continue
            share = 0.5 * _lit(maps, bases, k, px, py, pz, 0.7)
            share = (share + 0.5 * _lit(maps, bases, k, px, py, pz, 1.6)) * cosine
            for c in range(3):
                light[i, c] += lights.ambient_colour[k, c] * share


@inlined
def _shade_skin(  # type: ignore[no-untyped-def]
    t,
    a,
    b,
    dx,
    dy,
    dz,
    mesh,
    normals,
    ambient,
    skin,
    lights,
    maps,
    bases,
    colour,
    other,
    out,
    shares,
    cell,
):
    """Light that the skin sends along a ray."""
    i, j, k = mesh.triangles[t, 0], mesh.triangles[t, 1], mesh.triangles[t, 2]
    c = 1 - a - b
    p, n, uv = mesh.vertices, normals, mesh.uv
    px = p[i, 0] * a + p[j, 0] * b + p[k, 0] * c - lights.origin[0]
    py = p[i, 1] * a + p[j, 1] * b + p[k, 1] * c - lights.origin[1]
    pz = p[i, 2] * a + p[j, 2] * b + p[k, 2] * c - lights.origin[2]
    nx = n[i, 0] * a + n[j, 0] * b + n[k, 0] * c
    ny = n[i, 1] * a + n[j, 1] * b + n[k, 1] * c
    nz = n[i, 2] * a + n[j, 2] * b + n[k, 2] * c
    u = uv[i, 0] * a + uv[j, 0] * b + uv[k, 0] * c
    v = 1 - (uv[i, 1] * a + uv[j, 1] * b + uv[k, 1] * c)
    _texel(skin.colour, u, v, colour)
    if skin.look > 0.01:
        _texel(skin.look_down, u, v, other)
        for ch in range(3):
            colour[ch] += (other[ch] - colour[ch]) * skin.look
    side = skin.margin.shape[0]
    tx = np.uint64(min(max(u * side, 0.0), side - 1.0))
    ty = np.uint64(min(max(v * side, 0.0), side - 1.0))
    wet = skin.margin[ty, tx] * (1 / 255.0)
    liner = (mesh.liner[i] * a + mesh.liner[j] * b + mesh.liner[k] * c) * skin.liner
    shadow = mesh.eyeshadow[i] * a + mesh.eyeshadow[j] * b + mesh.eyeshadow[k] * c
    shadow *= skin.eyeshadow[0] * (1 - wet)
    liner *= 1 - 0.7 * wet
    for ch in range(3):
        albedo = colour[ch] * colour[ch] * skin.tint[ch]
        albedo += (skin.eyeshadow[1 + ch] - albedo) * shadow
        albedo = albedo * (1 - wet) + skin.caruncle[ch] * wet * 0.8
        colour[ch] = albedo + (0.012 - albedo) * liner
    slope = skin.bump * (1 - wet)
    gx, gy = skin.slope[ty, tx, 0] * slope, skin.slope[ty, tx, 1] * slope
    nx -= skin.right[0] * gx + skin.down[0] * gy
    ny -= skin.right[1] * gx + skin.down[1] * gy
    nz -= skin.right[2] * gx + skin.down[2] * gy
    norm = 1 / np.sqrt(nx * nx + ny * ny + nz * nz)
    nx *= norm
    ny *= norm
    nz *= norm
    for ch in range(3):
        other[ch] = ambient[i, ch] * a + ambient[j, ch] * b + ambient[k, ch] * c
        out[ch] = 0.0
    # Blinn–Phong, power 16 for skin and 64 where it is wet.
    dull, glossy = 0.09 * skin.shine * (1 - wet), 0.5 * skin.shine * wet
    for light in range(lights.direction.shape[0]):
        cosine = (
            nx * lights.direction[light, 0]
            + ny * lights.direction[light, 1]
            + nz * lights.direction[light, 2]
        )
        # Light bleeds through skin beyond the edge of its shadow.
        wrapped = (cosine + 0.18) / 1.18
        if wrapped <= 0:
            shares[cell, light] = -1
            continue
        if shares[cell, light] < 0:
            spread = 0.5 + 3 * lights.half_size[light, 0]
            shares[cell, light] = _soft_lit(
                maps, bases, light, px, py, pz, 0.9 + spread * 0.7, spread
            )
        share = shares[cell, light]
        for ch in range(3):
            other[ch] += lights.colour[light, ch] * wrapped * share
        if cosine > 0 and share > 0:
            hx, hy, hz = (
                lights.direction[light, 0] - dx,
                lights.direction[light, 1] - dy,
                lights.direction[light, 2] - dz,
            )
            s = (nx * hx + ny * hy + nz * hz) / np.sqrt(hx * hx + hy * hy + hz * hz)
            if s > 0:
                s *= s
                s *= s
                s *= s
                s *= s
                s = (s * dull + s * s * s * s * glossy) * cosine * share
                for ch in range(3):
                    out[ch] += lights.colour[light, ch] * s
    for ch in range(3):
        out[ch] += colour[ch] * other[ch]


@inlined
def _shade_eye(  # type: ignore[no-untyped-def]
    dx, dy, dz, hit, spot, eye, lights, maps, bases, near, colour, light, out, shares, cell
):
    """Light that the eyeball sends along a ray; returns what the sample shows."""
    gx, gy, gz = eye.axes[2, 0], eye.axes[2, 1], eye.axes[2, 2]
    nx, ny, nz = hit[3], hit[4], hit[5]
    px, py, pz = hit[0] - lights.origin[0], hit[1] - lights.origin[1], hit[2] - lights.origin[2]
    radius = np.sqrt(spot[0] * spot[0] + spot[1] * spot[1])
    # Textures are stretched so that pupil and limbus lie where this eye has them.
    if radius < eye.pupil_radius:
        stretch = TEXTURE_PUPIL_MM / eye.pupil_radius
    elif radius < eye.iris_radius:
        stretch = (TEXTURE_IRIS_MM - TEXTURE_PUPIL_MM) / (eye.iris_radius - eye.pupil_radius)
        stretch = (TEXTURE_PUPIL_MM + (radius - eye.pupil_radius) * stretch) / radius
    elif radius < 9:
        stretch = (9 - TEXTURE_IRIS_MM) / (9 - eye.iris_radius)
        stretch = (TEXTURE_IRIS_MM + (radius - eye.iris_radius) * stretch) / radius
    else:
        stretch = 1.0
    shown = SCLERA
    if radius < eye.iris_radius:
        shown = PUPIL if radius < eye.pupil_radius else IRIS
    uv = TEXTURE_PER_MM * stretch
    _texel(eye.texture, 0.5 + spot[0] * uv, 0.5 + spot[1] * uv, colour)
    white = min(max((radius * stretch - 5.5) / 0.8, 0.0), 1.0)
    for ch in range(3):
        tint = eye.iris_tint[ch] * (1 - white) + eye.sclera_tint[ch] * white
        colour[ch] = colour[ch] * colour[ch] * tint
    # The iris is a shallow bowl.
    bowl = 0.22 / eye.iris_radius * (1 - white)
    ax = eye.axes[0, 0] * spot[0] + eye.axes[1, 0] * spot[1]
    ay = eye.axes[0, 1] * spot[0] + eye.axes[1, 1] * spot[1]
    az = eye.axes[0, 2] * spot[0] + eye.axes[1, 2] * spot[1]
    mx = nx * white + gx * (1 - white) - ax * bowl
    my = ny * white + gy * (1 - white) - ay * bowl
    mz = nz * white + gz * (1 - white) - az * bowl
    norm = 1 / np.sqrt(mx * mx + my * my + mz * mz)
    for ch in range(3):
        light[ch] = near[ch]
        out[ch] = 0.0
    facing = -(dx * nx + dy * ny + dz * nz)
    fresnel = 1 - max(facing, 0.0)
    fresnel = min(0.025 + 0.975 * fresnel * fresnel * fresnel * fresnel * fresnel, 0.35)
    rx, ry, rz = dx + 2 * facing * nx, dy + 2 * facing * ny, dz + 2 * facing * nz
    for k in range(lights.direction.shape[0]):
        cosine = (
            (
                mx * lights.direction[k, 0]
                + my * lights.direction[k, 1]
                + mz * lights.direction[k, 2]
            )
            * norm
            + 0.1
        ) / 1.1
        if cosine <= 0:
            shares[cell, k] = -1
            continue
        if shares[cell, k] < 0:
            spread = 0.4 + 2.5 * lights.half_size[k, 0]
            shares[cell, k] = _soft_lit(maps, bases, k, px, py, pz, 0.5 + 0.5 * spread, spread)
        share = shares[cell, k]
        for ch in range(3):
            light[ch] += lights.colour[k, ch] * cosine * share
    upper, lower = near[4], near[5]
    shade = (1 - eye.lash_shade * np.exp(-upper * upper * 0.31)) * (1 - 0.45 * np.exp(-upper * 2.9))
    shade *= 1 - 0.25 * np.exp(-lower * 2.9)
    upness = 0.5 + 0.5 * (rx * lights.up[0] + ry * lights.up[1] + rz * lights.up[2])
    upness = upness * upness * (3 - 2 * upness)
    # The tear line along the lower lid.
    wet = 1 + 2.5 * np.exp(-lower * lower * 20)
    for ch in range(3):
        sky = lights.ground[ch] * (1 - upness) + lights.sky[ch] * upness
        colour[ch] = colour[ch] * light[ch] + sky * fresnel * near[3] * wet
    for k in range(lights.direction.shape[0]):
        _mirrored(lights, rx, ry, rz, 0.25 + 0.5 * white, k, light)
        if light[1] > 0:
            share = _lit(maps, bases, k, px, py, pz, 0.5) * fresnel * (1 - 0.5 * white)
            for ch in range(3):
                out[ch] += light[ch] * share
    for ch in range(3):
        out[ch] = (out[ch] + colour[ch]) * shade
    return shown


@compiled
def _draw_strip(  # type: ignore[no-untyped-def]
    camera, glasses, lens, through, points, texture, lashes, density, tone, depth, shown, picture
):
    """Blend a strip of lashes, seen through the lens or beside it, over the picture."""
    n = points.shape[0]
    x, y, z = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    _project(camera, glasses, lens, points, x, y)
    for i in range(n):
        z[i] = points[i, 2]
    left, right = max(int(x.min()) - 1, 0), min(int(x.max()) + 2, camera.width)
    top, bottom = max(int(y.min()) - 1, 0), min(int(y.max()) + 2, camera.height)
    if left >= right or top >= bottom:
        return
    for i in range(n):
        x[i] -= left
        y[i] -= top
    near = np.full((bottom - top, right - left), _FAR, np.float32)
    owner = np.full(near.shape, -1, np.int32)
    first, second = np.empty(near.shape, np.float32), np.empty(near.shape, np.float32)
    _rasterise(x, y, z, lashes.triangles, near, owner, first, second)
    rows, columns = texture.shape
    for row in range(top, bottom):
        for column in range(left, right):
            t = owner[row - top, column - left]
            if t < 0 or near[row - top, column - left] > depth[row, column] + 0.6:
                continue
            a, b = first[row - top, column - left], second[row - top, column - left]
            i, j, k = lashes.triangles[t, 0], lashes.triangles[t, 1], lashes.triangles[t, 2]
            uv, c = lashes.uv, 1 - a - b
            u = (uv[i, 0] * a + uv[j, 0] * b + uv[k, 0] * c) * columns - 0.5
            v = (uv[i, 1] * a + uv[j, 1] * b + uv[k, 1] * c) * rows - 0.5
            u = min(max(u, 0.0), columns - 1.001)
            v = min(max(v, 0.0), rows - 1.001)
            tx, ty = int(u), int(v)
            u -= tx
            v -= ty
            opacity = (texture[ty, tx] * (1 - u) + texture[ty, tx + 1] * u) * (1 - v)
            opacity += (texture[ty + 1, tx] * (1 - u) + texture[ty + 1, tx + 1] * u) * v
            opacity = min(opacity * density / 255.0, 0.97)
            if shown[row, column] == 255 or through[row, column] != lens:
                continue
            for ch in range(3):
                hair = tone * (1.1, 1.0, 0.9)[ch]
                picture[row, column, ch] += (hair - picture[row, column, ch]) * opacity


@inner
def _draw_glasses(camera, glasses, lights, level, seen, depth, shown, picture):  # type: ignore[no-untyped-def]
    """Draw the lens' reflections, its rim, bridge and temple over the picture."""
    ax = glasses.axes
    cx, cy, cz = glasses.centre[0], glasses.centre[1], glasses.centre[2]
    nx, ny, nz = ax[2, 0], ax[2, 1], ax[2, 2]
    wide, high = glasses.half_size[0], glasses.half_size[1]
    smaller = min(wide, high)
    offset = cx * nx + cy * ny + cz * nz
    hx = cx + ax[0, 0] * wide - ax[1, 0] * high * 0.45
    hy = cy + ax[0, 1] * wide - ax[1, 1] * high * 0.45
    hz = cz + ax[0, 2] * wide - ax[1, 2] * high * 0.45
    # The temple in the picture: from its hinge to behind the ear.
    ax0, ay0 = camera.cx + camera.focal * hx / hz, camera.cy + camera.focal * hy / hz
    ex, ey, ez = glasses.temple[0], glasses.temple[1], glasses.temple[2]
    tx0, ty0 = camera.cx + camera.focal * ex / ez - ax0, camera.cy + camera.focal * ey / ez - ay0
    span = tx0 * tx0 + ty0 * ty0 + 1e-6
    half = max(glasses.rim, 0.3) / 2
    bar = max(glasses.rim, 0.8) / 2
    for row in range(camera.height):
        for column in range(camera.width):
            dx = (column + 0.5 - camera.cx) / camera.focal
            dy = (row + 0.5 - camera.cy) / camera.focal
            dz = 1 / np.sqrt(dx * dx + dy * dy + 1)
            dx *= dz
            dy *= dz
            t = offset / (dx * nx + dy * ny + dz * nz)
            px, py, pz = dx * t - cx, dy * t - cy, dz * t - cz
            u = px * ax[0, 0] + py * ax[0, 1] + pz * ax[0, 2]
            v = px * ax[1, 0] + py * ax[1, 1] + pz * ax[1, 2]
            solid, rounding = 0.0, 0.0
            inside = False
            if abs(u) < wide + 4 and abs(v) < high + 4:
                ratio = (abs(u) / wide) ** glasses.exponent + (abs(v) / high) ** glasses.exponent
                edge = (ratio ** (1 / glasses.exponent) - 1) * smaller
                inside = edge < 0
                solid = min(max((half - abs(edge)) * 6 + 0.5, 0.0), 1.0)
                rounding = edge / half
                if glasses.rim < 0.4:
                    solid *= 0.5
            if u < -wide + 0.5 and u > -wide - 24:
                # The bridge, arched over the nose.
                away = v + high * 0.35 + 0.012 * (u + wide + 12) ** 2 * -1
                strength = min(max((bar - abs(away)) * 6 + 0.5, 0.0), 1.0)
                if strength > solid:
                    solid, rounding = strength, away / bar
            along = ((column + 0.5 - ax0) * tx0 + (row + 0.5 - ay0) * ty0) / span
            if 0 <= along <= 1 and not inside:
                z = hz + (ez - hz) * along
                sx, sy = column + 0.5 - ax0 - along * tx0, row + 0.5 - ay0 - along * ty0
                away = np.sqrt(sx * sx + sy * sy) * z / camera.focal
                strength = min(max((bar * 1.2 - away) * 6 + 0.5, 0.0), 1.0)
                if strength > solid and z < depth[row, column] + 3:
                    solid, rounding = strength, away / bar
            if inside:
                # A lens mirrors as a slightly curved pane.
                mx = nx - (ax[0, 0] * u + ax[1, 0] * v) / 110
                my = ny - (ax[0, 1] * u + ax[1, 1] * v) / 110
                mz = nz - (ax[0, 2] * u + ax[1, 2] * v) / 110
                facing = dx * mx + dy * my + dz * mz
                rx, ry, rz = dx - 2 * facing * mx, dy - 2 * facing * my, dz - 2 * facing * mz
                upness = 0.5 + 0.5 * (rx * lights.up[0] + ry * lights.up[1] + rz * lights.up[2])
                for ch in range(3):
                    sky = lights.ground[ch] * (1 - upness) + lights.sky[ch] * upness
                    picture[row, column, ch] *= glasses.transmission
                    picture[row, column, ch] += sky * glasses.coating * 0.5
                for k in range(lights.direction.shape[0]):
                    _mirrored(lights, rx, ry, rz, 0.15, k, seen)
                    for ch in range(3):
                        picture[row, column, ch] += seen[ch] * glasses.coating
            if solid > 0:
                rounding = min(max(rounding, -1.0), 1.0)
                gloss = 1 - abs(rounding + 0.4)
                gloss = max(gloss, 0.0) ** 4 * glasses.gloss
                for ch in range(3):
                    light = level * (3 * glasses.colour[ch] * (1.1 - 0.4 * rounding) + gloss)
                    picture[row, column, ch] += (light - picture[row, column, ch]) * solid
                depth[row, column] = min(depth[row, column], t)
                if shown[row, column] == 255:
                    shown[row, column] = SKIN


@inner
def _skin_level(picture, shown, depth):  # type: ignore[no-untyped-def]
    """Mean luminance of the skin, without its brightest and darkest."""
    total, count = 0.0, 0
    for row in range(0, shown.shape[0], 3):
        for column in range(0, shown.shape[1], 3):
            if shown[row, column] == SKIN and depth[row, column] < _FAR:
                p = picture[row, column]
                # A mean of roots: what a display's grey levels would average to.
                total += np.sqrt(0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2])
                count += 1
    mean = total / max(count, 1)
    return max(mean * mean, 1e-4)


@compiled
def _expose(picture, exposure, level):  # type: ignore[no-untyped-def]
    """Average samples to pixels and turn light into grey levels [H, W, 3]."""
    n = exposure.samples
    height, width = picture.shape[0] // n, picture.shape[1] // n
    image = np.empty((height, width, 3), np.uint8)
    # Dark skin stays somewhat darker.
    gain = exposure.target / (level * exposure.albedo**-0.6) / (n * n)
    for row in range(height):
        for column in range(width):
            for ch in range(3):
                total = 0.0
                for a in range(n):
                    for b in range(n):
                        total += picture[row * n + a, column * n + b, ch]
                total *= gain
                if total > 0.7:
                    total = 0.7 + 0.3 * np.tanh((total - 0.7) / 0.3)
                image[row, column, ch] = np.uint8(np.sqrt(max(total, 0.0)) * 255 + 0.5)
    return image


@compiled
def _eye_bounds(camera, glasses, lens, eye, mesh):  # type: ignore[no-untyped-def]
    """Return the columns and rows in which the eye can be in sight, or its iris behind lids."""
    # The cornea's sphere by the corners of a cube, with the limbus, which reaches beyond it.
    n, m = 8 + mesh.upper.shape[0], mesh.lower.shape[0]
    points = np.empty((n + m, 3))
    for i in range(8):
        for c in range(3):
            side = 1 if (i >> c) & 1 else -1
            points[i, c] = eye.centre[c] + CORNEA_CENTRE_MM * eye.axes[2, c]
            points[i, c] += side * (CORNEA_RADIUS_MM + 0.3)
    points[8:n] = mesh.upper
    points[n:] = mesh.lower
    x, y = np.empty(n + m), np.empty(n + m)
    _project(camera, glasses, lens, points, x, y)
    # The opening, with what bulges out of it.
    margin = camera.focal * _BULGE_MM / (eye.centre[2] - SCLERA_RADIUS_MM)
    left, right = min(x[:8].min(), x[8:].min() - margin), max(x[:8].max(), x[8:].max() + margin)
    top, bottom = min(y[:8].min(), y[8:].min() - margin), max(y[:8].max(), y[8:].max() + margin)
    first, above = max(int(left), 0), max(int(top), 0)
    last, below = min(int(right) + 1, camera.width), min(int(bottom) + 1, camera.height)
    return first, max(last, first), above, max(below, above)


@inner
def _shade_samples(  # type: ignore[no-untyped-def]
    camera,
    glasses,
    through,
    mesh,
    normals,
    ambient,
    skin,
    eye,
    lights,
    maps,
    bases,
    ambient_maps,
    ambient_bases,
    owner,
    first,
    second,
    depth,
    bounds,
    grid,
    scratch,
    shares,
    kinds,
    picture,
    shown,
):
    """Shade every sample; returns how many the iris covers, with and without those lids hide."""
    left, right, top, bottom = bounds
    hit, aside, spot, near, colour, other, out = scratch
    whole_iris, visible_iris = 0, 0
    for row in range(camera.height):
        for column in range(camera.width):
            dx, dy, dz, ox, oy, oz = _ray(camera, glasses, through[row, column], row, column)
            t = -1.0
            if top <= row < bottom and left <= column < right:
                limit = (depth[row, column] - oz) / dz
                t = _hit_eye(dx, dy, dz, ox, oy, oz, eye, limit, hit)
            eye_depth = oz + t * dz if t > 0 else _FAR
            skin_first = owner[row, column] >= 0 and depth[row, column] <= eye_depth
            if t > 0:
                _on_iris(dx, dy, dz, eye, hit, spot)
                if spot[0] * spot[0] + spot[1] * spot[1] < eye.iris_radius * eye.iris_radius:
                    whole_iris += 1
                    visible_iris += 0 if skin_first else 1
            # Shadows are computed for one sample of four: they would take half of the time.
            cell = column // 2
            if (row % 2 == 0 and column % 2 == 0) or kinds[cell] != skin_first:
                kinds[cell] = skin_first
                for k in range(lights.direction.shape[0]):
                    shares[cell, k] = -1
            if skin_first:
                _shade_skin(owner[row, column], first[row, column], second[row, column],
                            dx, dy, dz, mesh, normals, ambient, skin, lights, maps, bases,
                            colour, other, out, shares, cell)  # fmt: skip
                shown[row, column] = SKIN
            elif t > 0:
                gy, gx = (row - top) / _COARSE, (column - left) / _COARSE
                iy, ix = int(gy), int(gx)
                gy -= iy
                gx -= ix
                for cy in range(iy, iy + 2):
                    for cx in range(ix, ix + 2):
                        if grid[cy, cx, 0] < 0:
                            y_there, x_there = top + cy * _COARSE, left + cx * _COARSE
                            bent = through[min(y_there, camera.height - 1),
                                           min(x_there, camera.width - 1)]  # fmt: skip
                            ax, ay, az, px, py, pz = _ray(camera, glasses, bent, y_there, x_there)
                            _surroundings(ax, ay, az, px, py, pz, eye, mesh, lights, ambient_maps,
                                          ambient_bases, aside, grid[cy, cx])  # fmt: skip
                for c in range(_NUM_COARSE):
                    above = grid[iy, ix, c] * (1 - gx) + grid[iy, ix + 1, c] * gx
                    below = grid[iy + 1, ix, c] * (1 - gx) + grid[iy + 1, ix + 1, c] * gx
                    near[c] = above * (1 - gy) + below * gy
                shown[row, column] = _shade_eye(dx, dy, dz, hit, spot, eye, lights, maps, bases,
                                                near, colour, other, out, shares,
                                                cell)  # fmt: skip
                depth[row, column] = eye_depth
            else:
                continue
            for c in range(3):
                picture[row, column, c] = out[c]
    return whole_iris, visible_iris


@compiled
def draw(camera, mesh, skin, eye, lights, lashes, glasses, exposure):  # type: ignore[no-untyped-def]
    """Render one picture.

    Returns the image, uint8 [H, W, 3]; what each sample shows, uint8; and how many samples the iris
    covers, with and without what the lids hide (lashes and glasses hide nothing).
    """
    normals = _vertex_normals(mesh.vertices, mesh.triangles)
    n = mesh.vertices.shape[0]
    x, y, z = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    z[:] = mesh.vertices[:, 2]
    size = (camera.height, camera.width)
    depth, owner = np.full(size, _FAR, np.float32), np.full(size, -1, np.int32)
    first, second = np.empty(size, np.float32), np.empty(size, np.float32)
    _project(camera, glasses, False, mesh.vertices, x, y)
    _rasterise(x, y, z, mesh.triangles, depth, owner, first, second)
    bends, through = glasses.power != 0, np.zeros(size, np.bool_)
    _through_lens(camera, glasses, through)
    if bends:
        # What the lens shows, over what is beside it.
        near, number = np.full(size, _FAR, np.float32), np.full(size, -1, np.int32)
        a, b = np.empty(size, np.float32), np.empty(size, np.float32)
        _project(camera, glasses, True, mesh.vertices, x, y)
        _rasterise(x, y, z, mesh.triangles, near, number, a, b)
        depth, owner = np.where(through, near, depth), np.where(through, number, owner)
        first, second = np.where(through, a, first), np.where(through, b, second)

    num_lights, num_ambient = lights.direction.shape[0], lights.ambient_direction.shape[0]
    maps = np.empty((num_lights, _SHADOW_PX, _SHADOW_PX), np.float32)
    bases = np.empty((num_lights, 3, 3))
    for k in range(num_lights):
        _light_map(mesh, lights.origin, lights.direction[k], bases, k, _SHADOW_PX, maps[k])
    ambient_maps = np.empty((num_ambient, _AMBIENT_PX, _AMBIENT_PX), np.float32)
    ambient_bases = np.empty((num_ambient, 3, 3))
    for k in range(num_ambient):
        direction = lights.ambient_direction[k]
        _light_map(mesh, lights.origin, direction, ambient_bases, k, _AMBIENT_PX, ambient_maps[k])
    ambient = np.zeros(mesh.vertices.shape, np.float32)
    _vertex_ambient(mesh, normals, lights, ambient_maps, ambient_bases, ambient)

    left, right, top, bottom = _eye_bounds(camera, glasses, False, eye, mesh)
    if bends:
        bounds = _eye_bounds(camera, glasses, True, eye, mesh)
        left, right = min(left, bounds[0]), max(right, bounds[1])
        top, bottom = min(top, bounds[2]), max(bottom, bounds[3])
    # Filled where the eye is in sight.
    grid = np.full(
        ((bottom - top) // _COARSE + 2, (right - left) // _COARSE + 2, _NUM_COARSE), -1, np.float32
    )
    picture = np.zeros((camera.height, camera.width, 3), np.float32)
    shown = np.full(size, 255, np.uint8)
    scratch = (np.empty(7), np.empty(7), np.empty(2), np.empty(_NUM_COARSE), np.empty(3),
               np.empty(3), np.empty(3))  # fmt: skip
    shares = np.empty((camera.width // 2 + 1, num_lights))
    kinds = np.zeros(camera.width // 2 + 1, np.bool_)
    whole_iris, visible_iris = _shade_samples(
        camera, glasses, through, mesh, normals, ambient, skin, eye, lights, maps, bases,
        ambient_maps, ambient_bases, owner, first, second, depth, (left, right, top, bottom), grid,
        scratch, shares, kinds, picture, shown,
    )  # fmt: skip
    level = _skin_level(picture, shown, depth)
    for strip in (2, 3, 0, 1):
        for lens in (False, True):
            if bends or not lens:
                _draw_strip(camera, glasses, lens, through, lashes.points[strip],
                            lashes.textures[strip], lashes, lashes.density[strip],
                            lashes.tone * level * 3, depth, shown, picture)  # fmt: skip
    for row in range(camera.height):
        for column in range(camera.width):
            if shown[row, column] == 255:
                upness = 1 - row / camera.height
                for c in range(3):
                    sky = lights.ground[c] * (1 - upness) + lights.sky[c] * upness
                    picture[row, column, c] = sky * level * exposure.background
    if glasses.worn:
        _draw_glasses(camera, glasses, lights, level, np.empty(3), depth, shown, picture)
    return _expose(picture, exposure, level), shown, whole_iris, visible_iris
