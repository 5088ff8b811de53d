package resp

// splitInline splits a line into words as Redis does: "…" with \n \r \t \b \a \xHH and \", '…' with \'. What follows a closing
// quote must be a space.
func splitInline(line []byte) (words [][]byte, ok bool) {
	i := 0
	for {
		for i < len(line) && isSpace(line[i]) {
			i++
		}
		if i == len(line) {
			return words, true
		}
		var word []byte
		for i < len(line) && !isSpace(line[i]) {
			switch c := line[i]; c {
			case '"', '\'':
				rest, n, closed := quoted(line[i+1:], c)
				i += 1 + n
				if !closed || i < len(line) && !isSpace(line[i]) {
					return nil, false
				}
				word = append(word, rest...)
			default:
				word = append(word, c)
				i++
			}
		}
		if word == nil {
			word = []byte{}
		}
		words = append(words, word)
	}
}

// quoted reads up to the closing quote; n is how much of line that is.
func quoted(line []byte, quote byte) (word []byte, n int, closed bool) {
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == quote:
			return word, i + 1, true
		case c == '\\' && quote == '"' && i+3 < len(line) && line[i+1] == 'x' && isHex(line[i+2]) && isHex(line[i+3]):
			word = append(word, unhex(line[i+2])<<4|unhex(line[i+3]))
			i += 3
		case c == '\\' && quote == '"' && i+1 < len(line):
			i++
			word = append(word, unescape(line[i]))
		case c == '\\' && quote == '\'' && i+1 < len(line) && line[i+1] == '\'':
			i++
			word = append(word, '\'')
		default:
			word = append(word, c)
		}
	}
	return nil, len(line), false
}

func unescape(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'b':
		return '\b'
	case 'a':
		return '\a'
	}
	return c
}

func isSpace(c byte) bool {
	return c == ' ' || c == '\t' || c == '\n' || c == '\v' || c == '\f' || c == '\r'
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	}
	return c - '0'
}
