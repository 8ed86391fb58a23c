/** The state that a file is in, and what may be done with it there. */
import { type ErrnoName, KernelError } from '../../abi/errno.ts';
import {
  FILE_ACTIONS,
  type FileAction,
  type FileState,
  type FileTechnology,
  isBefore,
} from './file-technology.ts';

/** The errno of an action that the state does not permit. A host fault gives SIGBUS instead. */
const REFUSAL: Readonly<Record<Exclude<FileAction, 'host-fault'>, ErrnoName>> = {
  mmap: 'EPERM',
  allocate: 'EPERM',
  punch: 'EPERM',
  bind: 'EINVAL',
  unbind: 'EINVAL',
  populate: 'EINVAL',
  'guest-fault': 'EFAULT',
  'convert-to-private': 'EPERM',
  'convert-to-shared': 'EPERM',
};

/** @public */
export class FileLife {
  readonly technology: FileTechnology;
  readonly #mappedPages: () => number;
  #state: FileState = 'created';

  /** `mappedPages` counts the pages of the file that are in user page tables. */
  constructor(technology: FileTechnology, mappedPages: () => number) {
    this.technology = technology;
    this.#mappedPages = mappedPages;
  }

  get state(): FileState {
    return this.#state;
  }

  permits(action: FileAction): boolean {
    return this.technology.permits[this.#state].has(action);
  }

  /** What may be done now, in the order of FILE_ACTIONS. */
  get permitted(): readonly FileAction[] {
    return FILE_ACTIONS.filter((action) => this.permits(action));
  }

  /** Throws the action's errno when the state does not permit it. */
  check(action: Exclude<FileAction, 'host-fault'>): void {
    if (this.permits(action)) return;
    throw new KernelError(REFUSAL[action], `gmem-state-${action}`, this.refusal(action), {
      action,
      state: this.#state,
      technology: this.technology.name,
    });
  }

  /** One sentence on why the state does not permit `action`. */
  refusal(action: FileAction): string {
    return `${this.technology.name} does not permit ${action} on a guest_memfd that is ${this.#state}`;
  }

  /** Throws EBUSY when the file cannot go on to `state` because user space still maps it. */
  checkAdvance(state: FileState): void {
    const seals = isBefore(this.#state, 'sealed') && !isBefore(state, 'sealed') && state !== 'dead';
    if (!seals || !this.technology.sealsUnmapped) return;
    const pages = this.#mappedPages();
    if (pages === 0) return;
    throw new KernelError(
      'EBUSY',
      'gmem-user-mappings',
      `${this.technology.name} cannot seal a guest_memfd while user space maps ${pages} of its pages`,
      { pages, state: this.#state, technology: this.technology.name },
    );
  }

  /** Goes on to `state`; one that is behind changes nothing. */
  advance(state: FileState): void {
    if (isBefore(this.#state, state)) this.#state = state;
  }
}
