package js

import (
	"regexp"
	"strconv"
	"strings"
)

// strip takes comments and space out of a module, and shortens some words and the names of private fields (#name),
// which nobody else can see. It knows as much of the language as these modules use: a statement ends with a semicolon
// or a brace, template strings hold no others, and a slash begins a regular expression only behind one of
// ( , = : ? & | ! { } ; or return.
func strip(source string) string {
	var out []byte
	private := map[string]string{}
	last := "" // token
	for space := false; source != ""; {
		t := token.FindString(source)
		if beginsRegexp.MatchString(source) && endsBeforeRegexp.MatchString(last) {
			t = regularExpression.FindString(source)
		}
		source = source[len(t):]
		switch {
		case t[0] == ' ' || t[0] == '\n', strings.HasPrefix(t, "//"), strings.HasPrefix(t, "/*"):
			space = true
			if strings.HasPrefix(t, "/** @type") {
				source = cast.ReplaceAllString(source, "$1")
			}
			continue
		case t[0] == '#':
			if private[t] == "" {
				private[t] = "#" + name(len(private))
			}
			t = private[t]
		case shorter[t] != "":
			t = shorter[t]
		case (t == "}" || t == "]") && (last == ";" && t == "}" || last == ","):
			out = out[:len(out)-1]
		}
		words := isWord(last[max(len(last)-1, 0):]) && isWord(t[:1])
		if space && (words || last == t && (t == "+" || t == "-")) {
			out = append(out, ' ')
		}
		out = append(out, t...)
		last, space = t, false
	}
	return string(out)
}

var (
	token = regexp.MustCompile(`^(?s:/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|` + "`[^`]*`" +
		`|[ \n]+|#?[\w$]+|.)`)
	beginsRegexp      = regexp.MustCompile(`^/[^/*]`)
	endsBeforeRegexp  = regexp.MustCompile(`(^|[(,=:?&|!{};]|return)$`)
	cast              = regexp.MustCompile(`^\s*\(([\w$.#]+)\)`) // a name whose type a comment has said
	regularExpression = regexp.MustCompile(`^/(?:\\.|\[(?:\\.|[^\]\\])*\]|[^/\\\[])+/\w*`)
)

// shorter are words that mean the same in a module that works, of which none is the name of a property; and what the
// modules share of a GpollSource.
var shorter = map[string]string{
	"const": "let", "true": "!0", "false": "!1", "undefined": "void 0",
	"_at": "_b", "_attach": "_a", "_change": "_c", "_command": "_d", "_fetch": "_f", "_granted": "_g", "_newest": "_n",
	"_post": "_p", "_presenceAt": "_r", "_refuse": "_e", "_rests": "_h", "_scan": "_s", "_strayed": "_y", "_take": "_k",
	"_tell":  "_l",
	"_token": "_t", "_topics": "_o", "_wake": "_v", "_watched": "_w",
}

func isWord(s string) bool { return s != "" && strings.ContainsAny(s, words) }

const words = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_$#"

// name returns the shortest name that is the n-th.
func name(n int) string {
	const letters = 52 // of words
	if n < letters {
		return words[n : n+1]
	}
	return words[n%letters:n%letters+1] + strconv.Itoa(n/letters)
}
