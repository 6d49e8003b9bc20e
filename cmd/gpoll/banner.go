package main

import (
	"fmt"
	"io"
)

// printBanner says where the page is and how to try the server from a terminal. Each curl line works as it stands when
// it is pasted into a POSIX shell.
func printBanner(w io.Writer, set *settings, s *site) {
	curls := curlLines(set, s)
	fmt.Fprintf(w, `gpoll listens. The page to watch and to try it:

    %s/

Or paste these lines into terminals:

  receive by long-poll: register, then poll with the client id
    %s

  receive by Server-Sent Events
    %s

  broadcast a message; add ?topic=news to reach the subscribers of a topic only
    %s

`, s.baseURL, curls[0], curls[1], curls[2])
}

// curlLines returns one line each to register and poll, to read the event stream, and to send. No line contains the
// publish token: terminals are logged and shown to others.
func curlLines(set *settings, s *site) [3]string {
	curl := "curl -sS"
	if s.selfSigned {
		curl += " --cacert '" + set.tlsCert + "'"
	}
	auth := ""
	if s.token != "" {
		auth = ` -H "Authorization: Bearer $` + tokenVariable + `"`
	}
	mount := s.baseURL + set.path
	return [3]string{
		`id=$(` + curl + ` '` + mount + `' | cut -d '"' -f 4); while ` + curl + ` -f -w '\n' "` + mount +
			`?client-id=$id"; do :; done`,
		curl + ` -N '` + mount + `/events'`,
		curl + auth + ` -d 'hello from curl' '` + s.baseURL + sendPath + `'`,
	}
}
