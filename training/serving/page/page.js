// The page of polyvox serve: records, uploads, shows. This file is also the audio worklet (the first block).
const RATE = 16000;

if ("registerProcessor" in globalThis) {
  class Recorder extends AudioWorkletProcessor {
    process(inputs) {
      const sound = inputs[0]?.[0];
      if (sound?.length) this.port.postMessage(sound.slice());
      return true;
    }
  }
  registerProcessor("recorder", Recorder);
}

const TEXTS = {
  en: {
    interface: "Interface", key: "Key of this server", use_key: "Use it", ask: "Speak, or add recordings", model: "Model",
    beside: "Beside it", task: "Task", transcribe: "transcript", translate: "translation", record: "Record", stop: "Stop",
    choose: "Choose files", drop: "… or drop files here", recordings: "Recordings", cancel: "Cancel", remove: "Remove",
    plain: "Text", correct: "Correct the text", right_text: "What is really said", send: "Store the correction",
    consent: "I agree that this recording and this text are stored on the server, to train models.",
    none: "none", waiting: "waits", working: "is being transcribed", done: "done", cancelled: "cancelled", failed: "failed",
    own: "Recording", no_speech: "No speech was found.", confidence: "confidence", language: "language", play: "play",
    stored: "stored", agree: "Tick the box first: without your consent nothing is stored.", wave: "waveform",
    denied: "The microphone was denied. Allow it for this page (the icon beside the address), then press Record again.",
    no_microphone: "No microphone was found. Connect one, or choose a file.",
    no_recorder: "This browser cannot record here. Load the page again, or choose a file.",
    insecure: "Browsers give a microphone to pages on this computer or over HTTPS alone. Ask your administrator for HTTPS, or choose a file.",
    wrong_key: "The server does not know this key.", lost: "The server cannot be reached.", closed: "Live words stopped; the recording goes on.",
    loading: "The server loads its models. This page goes on by itself.",
  },
  vi: {
    interface: "Giao diện", key: "Khóa của máy chủ này", use_key: "Dùng khóa", ask: "Nói, hoặc thêm bản ghi âm", model: "Mô hình",
    beside: "So với", task: "Việc cần làm", transcribe: "chép lời", translate: "dịch", record: "Ghi âm", stop: "Dừng",
    choose: "Chọn tệp", drop: "… hoặc thả tệp vào đây", recordings: "Các bản ghi âm", cancel: "Hủy", remove: "Bỏ",
    plain: "Văn bản", correct: "Sửa văn bản", right_text: "Lời nói thật sự", send: "Lưu bản sửa",
    consent: "Tôi đồng ý để máy chủ lưu bản ghi âm và văn bản này nhằm huấn luyện mô hình.",
    none: "không", waiting: "đang chờ", working: "đang chép lời", done: "xong", cancelled: "đã hủy", failed: "không thành công",
    own: "Bản ghi", no_speech: "Không nghe thấy lời nói.", confidence: "độ tin cậy", language: "ngôn ngữ", play: "phát",
    stored: "đã lưu", agree: "Hãy đánh dấu vào ô trước: không có sự đồng ý của bạn thì không lưu gì cả.", wave: "dạng sóng",
    denied: "Micrô bị từ chối. Hãy cho phép trang này dùng micrô (biểu tượng cạnh địa chỉ), rồi nhấn Ghi âm lần nữa.",
    no_microphone: "Không tìm thấy micrô. Hãy nối micrô, hoặc chọn tệp.",
    no_recorder: "Trình duyệt này không ghi âm được ở đây. Hãy tải lại trang, hoặc chọn tệp.",
    insecure: "Trình duyệt chỉ cho trang trên máy này hoặc qua HTTPS dùng micrô. Hãy nhờ quản trị viên bật HTTPS, hoặc chọn tệp.",
    wrong_key: "Máy chủ không biết khóa này.", lost: "Không kết nối được với máy chủ.", closed: "Lời trực tiếp đã dừng; việc ghi âm vẫn tiếp tục.",
    loading: "Máy chủ đang nạp mô hình. Trang này sẽ tự tiếp tục.",
  },
};
const find = (selector, within = document) => within.querySelector(selector);
const state = { language: "en", key: "", models: [], settings: {}, queue: [], running: null, recording: null, count: 0 };
const said = (name) => TEXTS[state.language][name] ?? name;

function translate(root = document) {
  if (root === document) document.documentElement.lang = state.language;
  for (const part of root.querySelectorAll("[data-text]")) part.textContent = said(part.dataset.text);
}

function notice(text) { find("#notice").textContent = text; }

const headers = () => (state.key ? { Authorization: `Bearer ${state.key}` } : {});

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { ...headers(), ...options.headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error(said("lost"));
  }
  if (answer.ok) return answer;
  const told = (await answer.json().catch(() => ({}))).error ?? {};
  if (answer.status === 401) askForKey(state.key ? said("wrong_key") : "");
  throw Object.assign(new Error(told.message ?? answer.statusText), { status: answer.status, wait: Number(answer.headers.get("Retry-After")) });
}

function askForKey(text) {
  find("#key-form").hidden = false;
  notice(text);
  find("#key").focus();
}

async function start() {
  try {
    state.settings = await (await ask("v1/settings")).json();
    state.models = (await (await ask("v1/models")).json()).data;
  } catch (error) {
    if (error.status !== 401) notice(error.message);
    return;
  }
  find("#key-form").hidden = true;
  notice(state.models.length ? "" : said("loading"));
  if (!state.models.length) setTimeout(start, 1500);
  const names = state.models.map((model) => new Option(model.id, model.id));
  find("#model").replaceChildren(...names);
  const none = new Option(said("none"), "");
  none.dataset.text = "none";
  find("#second").replaceChildren(none, ...names.map((one) => one.cloneNode(true)));
}

// ---- sound

function wav(pieces, rate) {
  const count = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const view = new DataView(new ArrayBuffer(44 + 2 * count));
  const text = (at, word) => [...word].forEach((letter, n) => view.setUint8(at + n, letter.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + 2 * count, true); text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, rate, true); view.setUint32(28, 2 * rate, true); view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  text(36, "data"); view.setUint32(40, 2 * count, true);
  let at = 44;
  for (const piece of pieces) for (const sample of piece) { view.setInt16(at, sample, true); at += 2; }
  return new Blob([view], { type: "audio/wav" });
}

const pcm16 = (samples) => Int16Array.from(samples, (one) => Math.round(32767 * Math.max(-1, Math.min(1, one))));

function draw(canvas, samples, colour) {
  const brush = canvas.getContext("2d");
  const { width, height } = canvas;
  brush.clearRect(0, 0, width, height);
  brush.fillStyle = colour;
  const step = Math.max(1, Math.floor(samples.length / width));
  for (let x = 0; x < width && x * step < samples.length; x++) {
    let peak = 0;
    for (let n = x * step; n < Math.min(samples.length, (x + 1) * step); n++) peak = Math.max(peak, Math.abs(samples[n]));
    const tall = Math.max(1, peak * height);
    brush.fillRect(x, (height - tall) / 2, 1, tall);
  }
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

async function drawFile(canvas, file) {
  try {
    const context = new OfflineAudioContext(1, 1, RATE);
    const sound = await context.decodeAudioData(await file.arrayBuffer());
    draw(canvas, sound.getChannelData(0), colour("--main"));
  } catch { canvas.hidden = true; } // a format that the browser does not know; the server may
}

// ---- the microphone and live words

async function toggle() {
  if (state.starting) return; // a second click, while the browser still asks for the microphone
  if (state.recording) return stop();
  state.starting = true;
  try { await record(); } finally { state.starting = false; }
}

async function record() {
  if (!navigator.mediaDevices?.getUserMedia) return notice(said("insecure"));
  let stream, context;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: false } });
    context = new AudioContext({ sampleRate: RATE });
    await context.audioWorklet.addModule("page/page.js");
  } catch (error) {
    stream?.getTracks().forEach((track) => track.stop());
    context?.close();
    return notice(said(error.name === "NotAllowedError" ? "denied" : stream ? "no_recorder" : "no_microphone"));
  }
  notice("");
  const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
  const made = (state.recording = { stream, context, pieces: [], waiting: [], held: 0, socket: listen() });
  node.port.onmessage = ({ data }) => {
    const piece = pcm16(data);
    made.pieces.push(piece);
    made.waiting.push(piece);
    made.held += piece.length;
    if (made.held >= RATE / 10) send(made);
  };
  context.createMediaStreamSource(stream).connect(node);
  button(true);
}

function send(made) {
  const joined = new Int16Array(made.held);
  let at = 0;
  for (const piece of made.waiting) { joined.set(piece, at); at += piece.length; }
  made.waiting = []; made.held = 0;
  if (made.socket?.readyState === WebSocket.OPEN) made.socket.send(joined);
  draw(find("#meter"), Float32Array.from(joined, (one) => one / 32768), colour("--main"));
}

function button(on) {
  const one = find("#record");
  one.setAttribute("aria-pressed", on);
  one.dataset.text = on ? "stop" : "record";
  one.textContent = said(one.dataset.text);
}

function listen() {
  const model = state.models.find((one) => one.id === find("#model").value);
  find("#live").replaceChildren();
  if (!model?.live || find("#task").value !== "transcriptions") return null;
  const address = new URL("v1/realtime", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  const socket = new WebSocket(address, ["realtime", ...(state.key ? [`polyvox-key.${state.key}`] : [])]);
  const certain = document.createElement("span");
  const open = Object.assign(document.createElement("span"), { className: "open" });
  find("#live").append(certain, " ", open);
  socket.onopen = () => socket.send(JSON.stringify({ type: "session.update", session: { type: "transcription",
    audio: { input: { format: { type: "audio/pcm", rate: RATE }, transcription: { model: model.id } } } } }));
  socket.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    if (event.type.endsWith("transcription.delta")) { certain.textContent += (certain.textContent && !event.delta.startsWith(" ") ? " " : "") + event.delta; open.textContent = ""; }
    if (event.type === "polyvox.partial") open.textContent = event.text;
    if (event.type.endsWith("completed")) open.textContent = "";
    if (event.type.endsWith("transcription.failed")) { open.textContent = ""; notice(event.error.message); }
    if (event.type === "error") notice(event.error.message);
  };
  socket.onclose = () => { if (state.recording?.socket === socket) notice(said("closed")); };
  return socket;
}

async function stop() {
  const made = state.recording;
  state.recording = null;
  button(false);
  if (made.held) send(made);
  made.stream.getTracks().forEach((track) => track.stop());
  await made.context.close();
  if (made.socket?.readyState === WebSocket.OPEN) {
    made.socket.send(JSON.stringify({ type: "input_audio_buffer.commit" }));
    setTimeout(() => made.socket.close(), 5000);
  }
  if (made.pieces.length) add(new File([wav(made.pieces, RATE)], `${said("own")} ${++state.count}.wav`, { type: "audio/wav" }));
}

// ---- the queue

function add(file) {
  const shown = find("#item").content.firstElementChild.cloneNode(true);
  translate(shown);
  find(".name", shown).textContent = file.name;
  find("audio", shown).src = URL.createObjectURL(file);
  find("audio", shown).setAttribute("aria-label", file.name);
  find(".wave", shown).setAttribute("aria-label", `${said("wave")}: ${file.name}`);
  const second = find("#second").value;
  const models = [find("#model").value, ...(second ? [second] : [])];
  const item = { file, shown, models, task: find("#task").value, stop: new AbortController(), state: "" };
  find(".cancel", shown).onclick = () => cancel(item);
  find("#queue").prepend(shown);
  drawFile(find(".wave", shown), file);
  state.queue.push(item);
  tell(item, "waiting");
  next();
}

function tell(item, name, more = "") {
  item.state = name;
  const place = find(".state", item.shown);
  if (more) delete place.dataset.text; else place.dataset.text = name;
  place.textContent = said(name) + (more ? `: ${more}` : "");
  place.classList.toggle("failed", name === "failed");
  if (["done", "failed", "cancelled"].includes(name)) { const one = find(".cancel", item.shown); one.dataset.text = "remove"; one.textContent = said("remove"); }
}

function cancel(item) {
  if (["done", "failed", "cancelled"].includes(item.state)) { URL.revokeObjectURL(find("audio", item.shown).src); item.shown.remove(); return; }
  state.queue = state.queue.filter((one) => one !== item);
  item.stop.abort();
  tell(item, "cancelled");
}

async function next() {
  if (state.running || !state.queue.length) return;
  const item = (state.running = state.queue.shift());
  tell(item, "working");
  try {
    for (const model of item.models) show(item, model, await (await transcribe(item, model, "verbose_json")).json());
    tell(item, "done");
  } catch (error) {
    if (item.state !== "cancelled") tell(item, "failed", error.message);
  }
  state.running = null;
  next();
}

async function transcribe(item, model, format) {
  const timed = item.task === "transcriptions" && state.models.find((one) => one.id === model)?.word_times;
  for (let attempt = 0; ; attempt++) {
    const form = new FormData();
    form.append("model", model);
    form.append("response_format", format);
    if (format === "verbose_json") for (const one of timed ? ["segment", "word"] : ["segment"]) form.append("timestamp_granularities[]", one);
    form.append("file", item.file, "recording");
    try {
      return await ask(`v1/audio/${item.task}`, { method: "POST", body: form, signal: item.stop.signal });
    } catch (error) {
      if (![429, 503].includes(error.status) || attempt > 20) throw error;
      await new Promise((ready) => setTimeout(ready, 1000 * (error.wait || 1)));
      item.stop.signal.throwIfAborted();
    }
  }
}

// ---- results

function show(item, model, found) {
  const shown = find("#result").content.firstElementChild.cloneNode(true);
  translate(shown);
  find("h3", shown).textContent = model;
  find(".words", shown).lang = found.language_code ?? "und";
  find(".words", shown).append(...(found.words?.length ? found.words.flatMap((word) => [wordButton(item, word), " "]) : [found.text || said("no_speech")]));
  const label = (name) => { const one = document.createElement("span"); one.dataset.text = name; one.textContent = said(name); return one; };
  const facts = [];
  if (found.language) facts.push(label("language"), `: ${found.language} · `);
  if (found.confidence !== null) facts.push(label("confidence"), `: ${Math.round(100 * found.confidence)} % · `);
  find(".meta", shown).append(...facts, `${found.duration} s`);
  for (const one of shown.querySelectorAll("[data-format]")) one.onclick = () => download(item, model, found, one.dataset.format, shown);
  find("textarea", shown).value = found.text;
  find("textarea", shown).lang = found.language_code ?? "und";
  if (state.settings.collect && item.task === "transcriptions") find(".correct", shown).hidden = false;
  find(".send", shown).onclick = () => correct(item, found, shown);
  find(".results", item.shown).append(shown);
}

function wordButton(item, word) {
  const one = document.createElement("button");
  const sure = Math.round(100 * word.confidence);
  one.type = "button";
  one.className = `word ${["c0", "c1", "c2", "c3", ""][[50, 70, 85, 95].filter((bound) => sure >= bound).length]}`;
  one.textContent = word.word;
  one.title = `${said("play")}, ${said("confidence")} ${sure} %`;
  one.onclick = () => play(find("audio", item.shown), word, one);
  return one;
}

function play(audio, word, shown) {
  clearInterval(state.playing);
  for (const one of document.querySelectorAll(".word.playing")) one.classList.remove("playing");
  audio.currentTime = Math.max(0, word.start - 0.05);
  shown.classList.add("playing");
  audio.play();
  state.playing = setInterval(() => {
    if (audio.currentTime < word.end + 0.1 && !audio.paused) return;
    audio.pause();
    clearInterval(state.playing);
    shown.classList.remove("playing");
  }, 20);
}

async function download(item, model, found, format, shown) {
  try {
    let text = find("textarea", shown).value + "\n";
    if (format === "verbose_json") text = JSON.stringify(found, null, 1);
    if (format === "srt" || format === "vtt") text = await (await transcribe(item, model, format)).text();
    const ending = { srt: "srt", vtt: "vtt", verbose_json: "json", text: "txt" }[format];
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(new Blob([text])), download: `${item.file.name.replace(/\.[^.]*$/, "")}.${ending}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  } catch (error) { notice(error.message); }
}

async function correct(item, found, shown) {
  const told = find(".sent", shown);
  if (!find(".consent input", shown).checked) { told.textContent = said("agree"); return; }
  const form = new FormData();
  form.append("consent", "true");
  form.append("text", find("textarea", shown).value);
  form.append("recognised", found.text);
  if (found.language_code) form.append("language", found.language_code);
  form.append("file", item.file, "recording");
  try {
    await ask("v1/corrections", { method: "POST", body: form });
    told.textContent = said("stored");
  } catch (error) { told.textContent = error.message; }
}

// ---- what a person does

function begin() {
  state.language = (navigator.language || "en").startsWith("vi") ? "vi" : "en";
  const chosen = find("#interface");
  chosen.value = state.language;
  chosen.onchange = () => { state.language = chosen.value; translate(); };
  find("#record").onclick = toggle;
  find("#files").onchange = ({ target }) => { [...target.files].forEach(add); target.value = ""; };
  find("#key-form").onsubmit = (event) => { event.preventDefault(); state.key = find("#key").value.trim(); start(); };
  const drop = find("#drop");
  const over = (event, on) => { event.preventDefault(); drop.classList.toggle("over", on); };
  document.addEventListener("dragover", (event) => over(event, true));
  document.addEventListener("dragleave", (event) => over(event, false));
  document.addEventListener("drop", (event) => { over(event, false); [...event.dataTransfer.files].forEach(add); });
  translate();
  start();
}

if ("document" in globalThis) begin();
