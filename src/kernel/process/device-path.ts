/** The look-up of a path: there are device files, and the directories they are in. */
import { KernelError } from '../../abi/errno.ts';
import type { DeviceOpen, Devices } from '../devices.ts';

const MAX_PATH = 4096;
const MAX_NAME = 255;

/**
 * The device at `path`, which may start from the root without saying so. Throws ENAMETOOLONG, ENOTDIR for a path through
 * a device, EISDIR for a directory, ENOENT for everything else.
 * @internal
 */
export function deviceAt(devices: Devices, path: string): DeviceOpen {
  const names = path.split('/').filter((name) => name !== '' && name !== '.');
  if (path.length >= MAX_PATH || names.some((name) => name.length > MAX_NAME)) {
    throw new KernelError('ENAMETOOLONG', 'path-too-long', 'the path or a name in it is too long');
  }
  const full = `/${names.join('/')}`;
  const device = devices.get(full);
  if (device !== undefined && !path.endsWith('/')) return device;
  const data = { path, devices: devices.paths };
  const through = devices.paths.find((known) => `${full}/`.startsWith(`${known}/`));
  if (through !== undefined) {
    throw new KernelError('ENOTDIR', 'not-a-directory', `${through} is no directory`, data);
  }
  if (path !== '' && devices.paths.some((known) => known.startsWith(full === '/' ? full : `${full}/`))) {
    throw new KernelError('EISDIR', 'is-a-directory', `${path} is a directory`, data);
  }
  throw new KernelError('ENOENT', 'no-such-file', `there is no ${path === '' ? 'empty path' : path}`, data);
}
