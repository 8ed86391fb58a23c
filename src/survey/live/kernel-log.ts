/** The kernel's log of the running machine. */
import { execFileSync } from 'node:child_process';
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { attempt, type Reading } from './reading.ts';

/** A record of /dev/kmsg has at most this many bytes. */
const RECORD_BYTES = 8192;
/** Records that are read at most; a log buffer holds far fewer. */
const MAX_RECORDS = 1_000_000;

/** Waits for `dmesg` no longer than this. */
const PATIENCE_MS = 5000;

/** The log of this boot as dmesg prints it: from /dev/kmsg, or by dmesg where that is not to be opened. @internal */
export function readKernelLog(): Reading<string> {
  const records = readKmsg();
  if (records.state === 'read') return records;
  try {
    const options = { encoding: 'utf8', timeout: PATIENCE_MS, maxBuffer: 2 ** 26, stdio: 'pipe' } as const;
    return { state: 'read', value: execFileSync('dmesg', [], options) };
  } catch {
    return records;
  }
}

function readKmsg(): Reading<string> {
  const device = attempt(() => openSync('/dev/kmsg', constants.O_RDONLY | constants.O_NONBLOCK));
  if (device.state !== 'read') return device;
  const lines: string[] = [];
  try {
    const buffer = Buffer.alloc(RECORD_BYTES);
    for (let count = 0; count < MAX_RECORDS; count++) {
      const length = attempt(() => readRecord(device.value, buffer));
      if (length.state !== 'read') return length;
      if (length.value === 0) break;
      const line = lineOfRecord(buffer.toString('utf8', 0, length.value));
      if (line !== undefined) lines.push(line);
    }
  } finally {
    closeSync(device.value);
  }
  return { state: 'read', value: lines.join('\n') };
}

/** Bytes of the next record; 0 at the end of the log. */
function readRecord(descriptor: number, buffer: Buffer): number {
  for (;;) {
    try {
      return readSync(descriptor, buffer);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EAGAIN') return 0;
      // The record was overwritten meanwhile: the next read gives the oldest there is.
      if (code !== 'EPIPE') throw error;
    }
  }
}

/**
 * `[    1.423525] virt/tdx: ...` for `6,339,1423525,-;virt/tdx: ...` and its continuation lines left out; undefined for
 * what programs wrote to the log: only facility 0 is the kernel's.
 * @internal
 */
export function lineOfRecord(record: string): string | undefined {
  const match = /^(\d+),\d+,(\d+),[^;]*;([^\n]*)/.exec(record);
  if (match === null || Number(match[1]) >= 8) return undefined;
  const time = (Number(match[2]) / 1e6).toFixed(6).padStart(12);
  return `[${time}] ${match[3]}`;
}
