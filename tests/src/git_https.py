"""Serves the git repositories below a directory over HTTPS. Arguments: the directory, the certificate, its key, and a
directory for what the test and this program tell each other: `port` and `log` from here, `refuse` ("STATUS TIMES") from there."""
import http.server, os, ssl, subprocess, sys, threading

root, certificate, key, desk = sys.argv[1:]
lock = threading.Lock()


class Git(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def refused(self):
        with lock:
            with open(desk + "/log", "a") as log:
                log.write(self.path + "\n")
            try:
                status, times = open(desk + "/refuse").read().split()
            except FileNotFoundError:
                return False
            if int(times) == 0:
                return False
            with open(desk + "/refuse.new", "w") as refuse:
                refuse.write(f"{status} {int(times) - 1}")
            os.rename(desk + "/refuse.new", desk + "/refuse")
        self.send_response(int(status))
        if status == "401":
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
        self.send_header("Content-Length", "0")
        self.end_headers()
        return True

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.refused():
            return
        path, _, query = self.path.partition("?")
        env = {
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": root, "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path,
            "QUERY_STRING": query, "REQUEST_METHOD": self.command, "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_TYPE": self.headers.get("Content-Type") or "", "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding") or "",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol") or "", "GIT_CONFIG_NOSYSTEM": "1",
        }
        answer = subprocess.run(["git", "http-backend"], input=body, env=env, stdout=subprocess.PIPE).stdout
        head, _, content = answer.partition(b"\r\n\r\n")
        fields = [line.split(": ", 1) for line in head.decode().split("\r\n")]
        status = [value for name, value in fields if name == "Status"]
        self.send_response(int(status[0].split()[0]) if status else 200)
        for name, value in fields:
            if name != "Status":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Git)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
with open(desk + "/port.new", "w") as port:
    port.write(str(server.server_address[1]))
os.rename(desk + "/port.new", desk + "/port")
server.serve_forever()
