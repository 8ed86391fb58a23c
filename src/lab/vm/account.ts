/** What a host has lent out: all of it must come back with the last VM. */
import type { HostKernel } from '../../kernel/host-kernel.ts';
import type { Host } from '../host.ts';

/** @public */
export interface HostAccount {
  /** Pages in use, of all nodes. */
  readonly pages: number;
  /** KeyIDs of TDs and ASIDs of SNP guests. */
  readonly keyIds: number;
  readonly asids: number;
  /** Objects alive, by kind: processes and open files. */
  readonly objects: Readonly<Record<string, number>>;
}

/** @public */
export function accountOf({ machine, kernel }: Pick<Host, 'machine' | 'kernel'>): HostAccount {
  return {
    pages: usedPages(kernel),
    keyIds: kernel.keyIds.current,
    asids: machine.snp?.firmware.contexts.size ?? 0,
    objects: { ...kernel.openObjects.all },
  };
}

function usedPages({ allocator }: HostKernel): number {
  return allocator.accounts().reduce((sum, { used }) => sum + used, 0);
}
