//go:build unix

package proxies

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/corvuscrypto/gpoll/internal/freeport"
	"github.com/corvuscrypto/gpoll/internal/needs"
)

// patience bounds every wait. Nothing is asserted with it.
const patience = 20 * time.Second

// A proxy is one of docs/proxies.md.
type proxy struct {
	name     string
	language string // of its block there
	program  string
	pack     string // of Debian
	noTLS    bool
	seconds  string // how the block spells a time-out of 60 s

	// listens replaces what the block says of ports. Each first string has to be there.
	listens func(plain, secure string) []string

	// start returns the files that the distribution has around the block, which is in dir+"/site", and the arguments.
	start func(dir, plain, secure string) (files map[string]string, args []string)
}

var proxies = []*proxy{
	{
		name: "nginx", language: "nginx", program: "nginx", pack: "nginx-core", seconds: "60s",
		listens: func(plain, secure string) []string {
			return []string{"listen 80;", "listen " + plain + ";", "listen 443 ", "listen " + secure + " "}
		},
		start: func(dir, _, _ string) (map[string]string, []string) {
			return map[string]string{"config": strings.ReplaceAll(`daemon off;
pid DIR/pid;
error_log DIR/log warn;
events {}
http {
	access_log off;
	client_body_temp_path DIR/body;
	proxy_temp_path DIR/proxy;
	fastcgi_temp_path DIR/fastcgi;
	uwsgi_temp_path DIR/uwsgi;
	scgi_temp_path DIR/scgi;
	include DIR/site;
}
`, "DIR", dir)}, []string{"-p", dir, "-e", dir + "/log", "-c", dir + "/config"}
		},
	},
	{
		name: "HAProxy", language: "haproxy", program: "haproxy", pack: "haproxy", seconds: "60s",
		listens: func(plain, secure string) []string {
			return []string{"bind :80\n", "bind " + plain + "\n", "bind :443 ", "bind " + secure + " "}
		},
		start: func(dir, _, _ string) (map[string]string, []string) { return nil, []string{"-db", "-f", dir + "/site"} },
	},
	{
		name: "Caddy", language: "caddyfile", program: "caddy", pack: "caddy",
		listens: func(plain, secure string) []string {
			return []string{":80 {", port(plain) + " {\n\tbind 127.0.0.1", ":443 {", port(secure) + " {\n\tbind 127.0.0.1"}
		},
		start: func(dir, plain, secure string) (map[string]string, []string) {
			config := fmt.Sprintf("{\n\tadmin off\n\thttp_port %s\n\thttps_port %s\n}\nimport site\n",
				port(plain)[1:], port(secure)[1:])
			return map[string]string{"config": config}, []string{"run", "--adapter", "caddyfile", "--config", dir + "/config"}
		},
	},
	{
		name: "Apache", language: "apache", program: "apache2", pack: "apache2-bin", seconds: "ProxyTimeout 60",
		listens: func(plain, secure string) []string {
			return []string{"*:80>", plain + ">", "*:443>", secure + ">"}
		},
		start: func(dir, plain, secure string) (map[string]string, []string) {
			var b strings.Builder
			fmt.Fprintf(&b, "ServerRoot %[1]s\nServerName localhost\nPidFile %[1]s/pid\nErrorLog %[1]s/log\nMutex file:%[1]s\n",
				dir)
			for _, module := range []string{"mpm_event", "authz_core", "proxy", "proxy_http", "ssl", "socache_shmcb", "http2"} {
				fmt.Fprintf(&b, "LoadModule %[1]s_module /usr/lib/apache2/modules/mod_%[1]s.so\n", module)
			}
			if os.Getuid() == 0 { // its processes may not be root
				b.WriteString("User nobody\nGroup nogroup\n")
			}
			if plain != "" {
				fmt.Fprintf(&b, "Listen %s\nListen %s https\n", plain, secure)
			}
			fmt.Fprintf(&b, "Include %s/site\n", dir)
			return map[string]string{"config": b.String()}, []string{"-D", "FOREGROUND", "-f", dir + "/config"}
		},
	},
	{
		name: "Varnish", language: "vcl", program: "varnishd", pack: "varnish", noTLS: true, seconds: "60s",
		start: func(dir, plain, _ string) (map[string]string, []string) {
			return nil, []string{"-F", "-j", "none", "-n", dir + "/work", "-a", plain, "-f", dir + "/site", "-s", "malloc,16m",
				"-p", "thread_pool_min=10", "-p", "thread_pools=1"}
		},
	},
}

func port(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return ":" + port
}

// path returns where the program is; on Debian, only root has that folder in PATH.
func (p *proxy) path() (string, error) {
	if path, err := exec.LookPath(p.program); err == nil {
		return path, nil
	}
	return exec.LookPath(filepath.Join("/usr/sbin", p.program))
}

// A running proxy listens by HTTP on plain and by HTTPS on secure, which is "" where there is no TLS.
type running struct{ plain, secure string }

// run starts the proxy with a block in front of backend, until the test ends.
func (p *proxy) run(t *testing.T, block, backend string) running {
	t.Helper()
	path, err := p.path()
	if err != nil {
		needs.Lacks(t, p.name+" is not there, so it is not tried: install Debian's "+p.pack+"; make setup does")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil { // its workers may be nobody
		t.Fatal(err)
	}
	certificate(t, dir)
	at := running{plain: freeport.Address(t)}
	if !p.noTLS {
		at.secure = freeport.Address(t)
	}
	backendHost, backendPort, err := net.SplitHostPort(backend)
	if err != nil {
		t.Fatal(err)
	}
	replaced := []string{"/etc/ssl/", dir + "/"}
	if strings.Contains(block, `"8080"`) {
		replaced = append(replaced, `"127.0.0.1"`, `"`+backendHost+`"`, `"8080"`, `"`+backendPort+`"`)
	} else {
		replaced = append(replaced, "127.0.0.1:8080", backend)
	}
	if p.listens != nil {
		replaced = append(replaced, p.listens(at.plain, at.secure)...)
	}
	for i := 0; i < len(replaced); i += 2 {
		if i > 0 && !strings.Contains(block, replaced[i]) {
			t.Fatalf("%s: there is no %q in\n%s", p.name, replaced[i], block)
		}
	}
	files, args := p.start(dir, at.plain, at.secure)
	if files == nil {
		files = map[string]string{}
	}
	files["site"] = strings.NewReplacer(replaced...).Replace(block)
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var said bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &said, &said
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { // ends with the process, which the cleanup ends
		defer close(ended)
		_ = cmd.Wait() // its status says nothing that it has not said
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) // it may have ended
		select {
		case <-ended:
		case <-time.After(2 * time.Second): // Apache waits for connections
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-ended
		}
	})
	deadline := time.After(patience)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for _, addr := range []string{at.plain, at.secure} {
		for addr != "" {
			conn, err := net.Dial("tcp", addr)
			if err == nil {
				conn.Close()
				break
			}
			select {
			case <-ended:
				log, _ := os.ReadFile(filepath.Join(dir, "log"))
				t.Fatalf("%s has ended:\n%s%s", p.program, &said, log)
			case <-deadline:
				t.Fatalf("%s does not listen on %s", p.program, addr)
			case <-ticker.C:
			}
		}
	}
	return at
}

// certificate writes a certificate for 127.0.0.1, signed by itself, and its key.
func certificate(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	for name, content := range map[string][]byte{
		"example.pem": cert, "example.key": private, "example-both.pem": append(bytes.Clone(cert), private...),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
