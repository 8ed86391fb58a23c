/**
 * What the host side exposes to programs: one value per file, addresses and sizes in hexadecimal and bytes, absent
 * facts as absent files, every state with its reason. `/sys/devices/faux/tdx_host` is Linux's (Linux host rules
 * 1.11); the rest is the enumeration that its users ask for instead of log lines (5.3, 5.9, 5.13).
 */
import { type AddressRange, hex, overlaps } from '../abi/address.ts';
import { KernelError } from '../abi/errno.ts';
import type { HostKernel } from './host-kernel.ts';
import { pamtRange } from './pamt-alloc.ts';
import { adviceFiles, controlPolicyFile, memoryFiles, nodeFiles } from './sysfs-memory.ts';
import { keyIdFiles, moduleFiles, seamldrFiles, tdxHostFiles } from './sysfs-module.ts';
import { policyFiles } from './sysfs-policy.ts';
import { directory, file, isFile, lookUp, type SysfsDirectory, type SysfsFile, walk } from './sysfs-tree.ts';

/** System calls on the tree; made anew from the kernel's state for every call. @public */
export class Sysfs {
  readonly #kernel: HostKernel;

  constructor(kernel: HostKernel) {
    this.#kernel = kernel;
  }

  /** Names in a directory. Throws ENOENT, ENOTDIR. */
  list(path: string): readonly string[] {
    const node = lookUp(sysfsRoot(this.#kernel), path);
    if (isFile(node))
      throw new KernelError('ENOTDIR', 'not-a-directory', `${path}: not a directory`, { path });
    return Object.keys(node);
  }

  /** A file's value. Throws ENOENT, EISDIR, and what the file itself throws. */
  read(path: string): string {
    return this.#file(path).read();
  }

  /** Writes a value, blanks around it ignored. Throws ENOENT, EISDIR, EACCES for a read-only file, EINVAL, EBUSY. */
  write(path: string, value: string): void {
    const target = this.#file(path);
    if (target.write === undefined)
      throw new KernelError('EACCES', 'read-only', `${path}: is read-only`, { path });
    target.write(value.trim());
  }

  /** Every file below `path` (or the file itself) with its absolute path. Throws ENOENT, ENOTDIR. */
  files(path = '/'): readonly (readonly [path: string, file: SysfsFile])[] {
    const node = lookUp(sysfsRoot(this.#kernel), path);
    const prefix = path === '/' ? '' : path.replace(/\/+$/, '');
    return isFile(node) ? [[path, node]] : [...walk(node, prefix)];
  }

  #file(path: string): SysfsFile {
    const node = lookUp(sysfsRoot(this.#kernel), path);
    if (!isFile(node)) throw new KernelError('EISDIR', 'is-a-directory', `${path}: is a directory`, { path });
    return node;
  }
}

function sysfsRoot(kernel: HostKernel): SysfsDirectory {
  return {
    sys: {
      firmware: {
        tdx: {
          state: file(() => kernel.state),
          advice: adviceFiles(kernel),
          control_policy: controlPolicyFile(kernel),
          cmrs: cmrFiles(kernel),
          keyids: keyIdFiles(kernel),
          module: moduleFiles(kernel),
          policy: policyFiles(kernel),
          seamldr: kernel.detection === null ? {} : seamldrFiles(kernel),
          stages: stageFiles(kernel),
          tdmrs: tdmrFiles(kernel),
        },
      },
      devices: {
        faux: { tdx_host: tdxHostFiles(kernel) },
        system: { node: nodeFiles(kernel), memory: memoryFiles(kernel) },
      },
    },
  };
}

function rangeFiles({ start, end }: AddressRange): SysfsDirectory {
  return { start: file(() => hex(start)), end: file(() => hex(end)), bytes: file(() => end - start) };
}

/** Nodes whose memory a range touches, as a list such as `0 1`. */
function nodesOf(kernel: HostKernel, range: AddressRange): string {
  const nodes = kernel.memblock.filter((region) => overlaps(region, range)).map((region) => region.node);
  return [...new Set(nodes)].sort((a, b) => a - b).join(' ');
}

function cmrFiles(kernel: HostKernel): SysfsDirectory {
  return directory(
    kernel.sysinfo?.cmrs ?? [],
    (_, i) => String(i),
    (cmr) => ({ ...rangeFiles(cmr), node: file(() => nodesOf(kernel, cmr)) }),
  );
}

function tdmrFiles(kernel: HostKernel): SysfsDirectory {
  return directory(
    kernel.tdmrs,
    (_, i) => String(i),
    (tdmr) => ({
      ...rangeFiles(tdmr),
      node: file(() => nodesOf(kernel, tdmr)),
      reserved_areas: file(() => tdmr.reservedAreas.length),
      reserved: directory(
        tdmr.reservedAreas,
        (_, i) => String(i),
        (area) => ({ ...rangeFiles(area), why: file(() => area.why) }),
      ),
      pamt: {
        ...rangeFiles(pamtRange(tdmr.pamt)),
        node: file(() => nodesOf(kernel, pamtRange(tdmr.pamt))),
        bytes_4k: file(() => tdmr.pamt.bytes4k),
        bytes_2m: file(() => tdmr.pamt.bytes2m),
        bytes_1g: file(() => tdmr.pamt.bytes1g),
      },
    }),
  );
}

function stageFiles(kernel: HostKernel): SysfsDirectory {
  return directory(
    kernel.stages,
    (stage, i) => `${String(i).padStart(2, '0')}-${stage.name}`,
    ({ title, state, errno, reason }) => ({
      title: file(() => title),
      state: file(() => state),
      ...(errno === undefined ? {} : { errno: file(() => errno) }),
      ...(reason === undefined
        ? {}
        : { reason_code: file(() => reason.code), reason: file(() => reason.text) }),
    }),
  );
}
