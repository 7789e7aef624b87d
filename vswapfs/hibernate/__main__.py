"""For an initramfs: `python -m vswapfs.hibernate PATH` resumes, or says why not and ends.

Owns what is said at boot. With `noresume`, as on the kernel's command line, an image that is there
is set aside, because the machine goes on without it.
"""

import sys
import time

from vswapfs.errors import VswapError
from vswapfs.hibernate import area
from vswapfs.hibernate.reader import NoImageError, mark_refused
from vswapfs.hibernate.resume import resume


def main() -> int:
    path, *options = sys.argv[1:]
    try:
        if "noresume" in options:
            with area.opened(path) as backing:
                mark_refused(backing, int(time.time()))
        else:
            resume(path, lambda text: print(f"vswapfs: {path}: {text}", flush=True))
    except NoImageError:
        return 0
    except VswapError as error:
        print(f"vswapfs: {path}: not resumed: {error.message}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
