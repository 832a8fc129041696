"""Export a network to ONNX and serve it over HTTP, without skelops in the server."""

import json
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import onnxruntime
import torch

from skelops.export import export
from skelops.models import create_model

FRAMES, JOINTS, CLASSES = 32, 17, 10


def serve(path: Path) -> HTTPServer:
    """POST clips (N, C, T, V, M) as JSON, receive scores (N, num_classes)."""
    session = onnxruntime.InferenceSession(path)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            clips = np.array(json.loads(body), np.float32)
            (scores,) = session.run(None, {"clips": clips})
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(scores.tolist()).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def main() -> None:
    torch.manual_seed(0)
    model = create_model(
        "ctr_gcn", num_classes=CLASSES, layout="coco17", num_persons=1, base_channels=16,
        stages=[(16, 1), (32, 2)],
    ).eval()  # fmt: skip
    clips = torch.randn(2, 3, FRAMES, JOINTS, 1)
    with tempfile.TemporaryDirectory() as folder:
        written = export(model, clips, Path(folder) / "network.onnx")
        size = written.path.stat().st_size / 2**10
        print(f"{written.path.name}: {size:.0f} KiB, scores differ by {written.difference:.1e}")

        server = serve(written.path)
        address = f"http://127.0.0.1:{server.server_port}"
        answer = urlopen(Request(address, json.dumps(clips.tolist()).encode()))
        scores = torch.tensor(json.load(answer))
        server.shutdown()
    with torch.inference_mode():
        difference = (scores - model(clips)).abs().max().item()
    assert difference < 1e-4, difference
    print(f"{address} answered {tuple(scores.shape)}; as the network within {difference:.1e}")


if __name__ == "__main__":
    main()
