// The level of a stream, in dBFS, on a <meter>.

const SILENT = -60;
let context = null;

export class Meter {
  constructor(element, stream) {
    context ??= new AudioContext();
    void context.resume();
    this.element = element;
    this.source = context.createMediaStreamSource(stream);
    this.analyser = context.createAnalyser();
    this.analyser.fftSize = 1024;
    this.samples = new Float32Array(this.analyser.fftSize);
    this.source.connect(this.analyser);
  }

  draw() {
    this.analyser.getFloatTimeDomainData(this.samples);
    let power = 0;
    for (const sample of this.samples) power += sample * sample;
    const level = 10 * Math.log10(power / this.samples.length + 1e-12);
    this.element.value = Math.max(SILENT, level);
  }

  close() {
    this.source.disconnect();
    this.element.value = SILENT;
  }
}
