/** Debian's OVMF, where it is installed or TDXLAB_OVMF names it. */
import { existsSync } from 'node:fs';

const PLACES = [process.env.TDXLAB_OVMF, '/usr/share/ovmf/OVMF.fd'];

/** Path of the image; undefined where there is none. */
export const OVMF = PLACES.find((path): path is string => path !== undefined && existsSync(path));
