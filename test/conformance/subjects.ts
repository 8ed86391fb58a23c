/** Kernels that the conformance cases run on: the model with each backend, and the one that runs the tests. */
import { accessSync, constants } from 'node:fs';
import { release } from 'node:os';
import { isLinux, LinuxSystemCalls } from '../support/linux-system-calls.ts';
import { type Quirks, Session } from './session.ts';

export interface Subject {
  readonly name: string;
  /** Why it cannot run here; null where it can. */
  readonly skipped: string | null;
  readonly start: () => Promise<{ readonly session: Session; readonly expectBalanced: () => void }>;
}

const LINUX_PATH = '/dev/kvm';

function noKvm(): string | null {
  if (!isLinux) return 'not Linux on x86-64';
  try {
    accessSync(LINUX_PATH, constants.R_OK | constants.W_OK);
    return null;
  } catch {
    return `${LINUX_PATH} cannot be opened`;
  }
}

/** The kernel that runs the tests is older than this major version. */
function isBefore(major: number): boolean {
  return Number.parseInt(release(), 10) < major;
}

const QUIRKS: Quirks = {
  isReal: true,
  bindsAtLastOffset: isBefore(7),
  fileOverlapIsInvalid: isBefore(7),
};

const skipped = noKvm();
const linux: Subject = {
  name: skipped === null ? 'the real kernel' : `the real kernel, skipped: ${skipped}`,
  skipped,
  start: async () => ({
    session: new Session(new LinuxSystemCalls(), 0, 1, QUIRKS),
    expectBalanced: () => {},
  }),
};

export const SUBJECTS: readonly Subject[] = [linux];
