/** Virtual time in nanoseconds since power-on. Nothing in the model reads the wall clock. @public */
export class VirtualClock {
  nowNs = 0;

  advance(ns: number): void {
    this.nowNs += ns;
  }

  /** State for a saved machine. */
  save() {
    return { nowNs: this.nowNs };
  }

  /** Goes on from what `save` gave. */
  restore(saved: ReturnType<VirtualClock['save']>): void {
    this.nowNs = saved.nowNs;
  }
}
