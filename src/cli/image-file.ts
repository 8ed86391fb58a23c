/** TDVF images named on the command line. */
import { readFileSync, statSync } from 'node:fs';
import { GIB } from '../abi/address.ts';
import { formatBytes } from '../abi/format-bytes.ts';
import { InputError } from '../abi/input-error.ts';
import { SAMPLE_IMAGE, sampleImage } from '../vmm/sample-image.ts';
import { readTdvf, type TdvfImage } from '../vmm/tdvf/image.ts';

/** More than any firmware has. */
const MAX_IMAGE_BYTES = GIB;

/** The image in a file, or the embedded one under the name `sample`. Throws InputError. @internal */
export function readImage(path: string): TdvfImage {
  return path === SAMPLE_IMAGE ? sampleImage() : readTdvf(path, readBytes(path));
}

function readBytes(path: string): Uint8Array {
  try {
    const stat = statSync(path);
    if (stat.isDirectory()) throw new InputError(`${path}: this is a folder; give a firmware image`);
    if (!stat.isFile() && !stat.isFIFO()) throw new InputError(`${path}: neither a file nor a pipe`);
    if (stat.size <= MAX_IMAGE_BYTES) return readFileSync(path);
    throw new InputError(`${path}: not a TDVF image: ${formatBytes(stat.size)} are too many for a firmware`);
  } catch (error) {
    if (error instanceof InputError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT') throw new InputError(`${path}: cannot read it: ${message}`);
    throw new InputError(`${path}: there is no such file; '${SAMPLE_IMAGE}' names the embedded image`);
  }
}
