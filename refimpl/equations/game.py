"""The smallest adversarial games and what each update rule does to them, as matrices.

min_x max_y V(x, y) with V = x^T A y; the scalar game x*y of the lectures is A = [[1]]. With z = (x, y) the players
follow the field F(z) = (dV/dx, -dV/dy) = J z, and one update of step a is z <- M z: everything is in M's eigenvalues.
"""
import numpy as np

from ..ops._check import require

XY = ((1.0,),)  # the matrix A of the game x*y


def rotation(phi):
    r"""Rotation of the plane.

    $$R(\phi) = \begin{pmatrix}\cos\phi & -\sin\phi\\ \sin\phi & \cos\phi\end{pmatrix}$$

    The same R turns the players of x*y around their equilibrium and, as [x_t; v] = R(-phi) [x0; eps], data into noise.

    Shapes: phi a number. Returns (2, 2) float64.
    Source: Mescheder et al. 2018, arXiv:1801.04406; Salimans and Ho 2022, arXiv:2202.00512, app. D.
    """
    c, s = np.cos(phi), np.sin(phi)
    return np.array([[c, -s], [s, c]])


def field_matrix(a=XY):
    r"""Matrix of the field that simultaneous players descend, for V = x^T A y.

    $$F(z) = \begin{pmatrix}\nabla_x V\\ -\nabla_y V\end{pmatrix} = J z, \qquad
      J = \begin{pmatrix}0 & A\\ -A^T & 0\end{pmatrix}$$

    Shapes: a (m, n). Returns (m+n, m+n), antisymmetric: the field turns and has divergence 0.
    Raises: ValueError when a is no matrix.
    Source: Mescheder et al. 2018, arXiv:1801.04406; Balduzzi et al. 2018, arXiv:1802.05642.
    """
    a = np.asarray(a, dtype=np.float64)
    require(a.ndim == 2 and a.size > 0, f"field_matrix: a must be a matrix (m, n), got shape {a.shape}")
    m, n = a.shape
    j = np.zeros((m + n, m + n))
    j[:m, m:], j[m:, :m] = a, -a.T
    return j


def simultaneous(step, a=XY):
    r"""Both players move at once. For x*y: rotation by atan(a) and growth, so the game always diverges.

    $$z \leftarrow z - \alpha F(z), \quad M = I - \alpha J; \qquad
      x y:\; \begin{pmatrix}1&-\alpha\\ \alpha&1\end{pmatrix} = \sqrt{1+\alpha^2}\,R(\arctan\alpha)$$

    Shapes: step a number, a (m, n). Returns (m+n, m+n).
    Source: Mescheder et al. 2018, arXiv:1801.04406. The lecture calls it "alternating": see there.
    """
    j = field_matrix(a)
    return np.eye(len(j)) - step * j


def alternating(step, a=XY):
    r"""The max player answers the min player's new point. For x*y: area-preserving, bounded for step < 2.

    $$x \leftarrow x - \alpha A y, \quad y \leftarrow y + \alpha A^T x_{\mathrm{new}}; \qquad
      x y:\; \begin{pmatrix}1&-\alpha\\ \alpha&1-\alpha^2\end{pmatrix}$$

    Shapes: step a number, a (m, n). Returns (m+n, m+n), of determinant 1.
    Source: Gidel et al. 2019, arXiv:1807.04740.
    """
    j = field_matrix(a)
    m = np.shape(a)[0]
    first, second = np.eye(len(j)), np.eye(len(j))
    first[:m] -= step * j[:m]
    second[m:] -= step * j[m:]
    return second @ first


def extragradient(step, a=XY):
    r"""Move by the field at a point looked ahead. For x*y: converges for step < 1.

    $$z \leftarrow z - \alpha F(z - \alpha F(z)), \quad M = I - \alpha J + \alpha^2 J^2; \qquad
      x y:\; |\lambda|^2 = 1 - \alpha^2 + \alpha^4$$

    Shapes: step a number, a (m, n). Returns (m+n, m+n).
    Source: Korpelevich 1976; Gidel et al. 2019, arXiv:1802.10551.
    """
    j = field_matrix(a)
    return np.eye(len(j)) - step * j @ (np.eye(len(j)) - step * j)


def optimistic(step, a=XY):
    r"""Move by twice the field less the previous field. For x*y: converges for step < 1/sqrt(3).

    $$z_{n+1} = z_n - 2\alpha F(z_n) + \alpha F(z_{n-1}), \quad
      M = \begin{pmatrix}I-2\alpha J & \alpha J\\ I & 0\end{pmatrix}$$

    Shapes: step a number, a (m, n). Returns (2(m+n), 2(m+n)), acting on (z_n, z_{n-1}).
    Source: Daskalakis et al. 2018, arXiv:1711.00141.
    """
    j = field_matrix(a)
    identity = np.eye(len(j))
    top = np.concatenate([identity - 2 * step * j, step * j], axis=1)
    return np.concatenate([top, np.concatenate([identity, 0 * j], axis=1)])


def proximal(step, a=XY):
    r"""Move by the field at the point arrived at (implicit step). For x*y: converges for every step.

    $$z_{n+1} = z_n - \alpha F(z_{n+1}), \quad M = (I+\alpha J)^{-1}; \qquad x y:\; |\lambda|^2 = \frac{1}{1+\alpha^2}$$

    Shapes: step a number, a (m, n). Returns (m+n, m+n).
    Source: Rockafellar 1976; Mokhtari et al. 2020, arXiv:1901.08511.
    """
    j = field_matrix(a)
    return np.linalg.inv(np.eye(len(j)) + step * j)


def averaged(matrix, n):
    r"""What maps z_0 to the mean of the first n iterates: bounded cycles average to the equilibrium, as 1/n.

    $$\bar z_n = \frac1n\sum_{k=0}^{n-1} M^k z_0 = \frac1n (I-M)^{-1}(I-M^n)\,z_0$$

    Shapes: matrix (d, d) without eigenvalue 1, n >= 1. Returns (d, d).
    Source: Bailey et al. 2020, arXiv:1907.04392; Salimans et al. 2016, arXiv:1606.03498, sec. 3.3 for the idea in GANs.
    """
    require(n >= 1, f"averaged: n must be at least 1, got {n}")
    identity = np.eye(len(matrix))
    return np.linalg.solve(identity - matrix, identity - np.linalg.matrix_power(matrix, n)) / n


def spectral_radius(matrix):
    r"""Largest modulus of the eigenvalues: below 1 the game converges, above 1 it diverges.

    $$\rho(M) = \max_i |\lambda_i(M)|$$

    Shapes: matrix (d, d). Returns a float.
    Source: Mescheder et al. 2017, arXiv:1705.10461.
    """
    return float(np.max(np.abs(np.linalg.eigvals(matrix))))


def growth(step):
    r"""Factor by which simultaneous descent on x*y leaves its equilibrium at every update.

    $$\|z_n\| = (1+\alpha^2)^{n/2}\,\|z_0\|$$

    Shapes: step a number. Returns a float.
    Source: Mescheder et al. 2018, arXiv:1801.04406.
    """
    return float((1 + step**2) ** 0.5)


def conserved(x, y, step):
    r"""The ellipse on which alternating descent on x*y stays.

    $$Q(x, y) = x^2 - \alpha x y + y^2$$

    Shapes: x, y of one shape, step a number. Returns that shape. Positive definite for step < 2.
    Source: Bailey et al. 2020, arXiv:1907.04392.
    """
    return x**2 - step * x * y + y**2


def trajectory(matrix, z0, steps):
    r"""Iterates of a linear update.

    $$z_n = M^n z_0, \quad n = 0 \dots \mathrm{steps}$$

    Shapes: matrix (d, d), z0 (d,). Returns (steps+1, d).
    Source: definition.
    """
    z, expected = [np.asarray(z0, dtype=np.float64)], np.shape(matrix)[:1]
    require(z[0].shape == expected, f"trajectory: z0 must have shape {expected}, got {z[0].shape}")
    for _ in range(steps):
        z.append(matrix @ z[-1])
    return np.stack(z)


def dirac_gan_field(theta, psi, slope=0.5, gamma=0.0):
    r"""Velocity of the Dirac-GAN: data at 0, generator at theta, discriminator D(x) = psi x, R1 of weight gamma.

    $$L = f(\theta\psi) + f(0) - \frac\gamma2\psi^2, \qquad
      \dot\theta = -f'(\theta\psi)\,\psi, \quad \dot\psi = f'(\theta\psi)\,\theta - \gamma\psi$$

    with the GAN's f(t) = -log(1+exp(-t)), whose f'(0) = 1/2, scaled to f'(0) = slope.

    Shapes: theta, psi of one shape; slope, gamma numbers. Returns two arrays.
    Source: Mescheder et al. 2018, arXiv:1801.04406, def. 2.1 and sec. 4.1.
    """
    derivative = 2 * slope / (1 + np.exp(theta * psi))
    return -derivative * psi, derivative * theta - gamma * psi


def dirac_gan_matrix(slope=0.5, gamma=0.0):
    r"""Jacobian of the Dirac-GAN's field at its equilibrium (0, 0).

    $$\begin{pmatrix}0 & -f'(0)\\ f'(0) & -\gamma\end{pmatrix}$$

    Shapes: slope, gamma numbers. Returns (2, 2); a simultaneous step h multiplies z by I plus h times it.
    Source: Mescheder et al. 2018, arXiv:1801.04406.
    """
    return np.array([[0.0, -slope], [slope, -gamma]])


def dirac_gan_eigenvalues(slope=0.5, gamma=0.0):
    r"""Eigenvalues of that Jacobian: without R1 the players circle; with it they spiral in while gamma < 2 f'(0).

    $$\lambda = -\frac\gamma2 \pm \sqrt{\frac{\gamma^2}{4} - f'(0)^2}$$

    Shapes: slope, gamma numbers. Returns (2,) complex128.
    Source: Mescheder et al. 2018, arXiv:1801.04406, sec. 4.1.
    """
    root = np.sqrt(complex(gamma**2 / 4 - slope**2))
    return np.array([-gamma / 2 + root, -gamma / 2 - root])
