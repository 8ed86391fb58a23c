/** Device files: who answers when a path is opened. */
import type { FileObject } from './process/file-object.ts';
import type { Task } from './process/task.ts';

/** Makes what an open of the device gives. Throws KernelError. @public */
export type DeviceOpen = (task: Task) => FileObject | Promise<FileObject>;

/** @public */
export class Devices {
  readonly #devices = new Map<string, DeviceOpen>();

  /** Makes the device known. Throws Error where the path is taken. */
  register(path: string, open: DeviceOpen): void {
    if (this.#devices.has(path)) throw new Error(`${path} is registered already`);
    this.#devices.set(path, open);
  }

  unregister(path: string): void {
    this.#devices.delete(path);
  }

  get(path: string): DeviceOpen | undefined {
    return this.#devices.get(path);
  }

  get paths(): readonly string[] {
    return [...this.#devices.keys()];
  }
}
