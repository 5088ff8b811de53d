package storeserver

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
)

// FakeDynamoDB is a fake of DynamoDB with the four operations and the two conditions that a lock needs: the condition of a PutItem
// is checked in one step with the write. It verifies no signatures.
type FakeDynamoDB struct {
	URL string

	mu     sync.Mutex
	tables map[string]map[string]fakeItem // by table and key
	refuse string                         // the kind of error that everything is answered with
}

type fakeItem map[string]map[string]string // attribute, type, value

// StartFakeDynamoDB starts one without tables.
func StartFakeDynamoDB(t T) *FakeDynamoDB {
	f := &FakeDynamoDB{tables: map[string]map[string]fakeItem{}}
	server := httptest.NewServer(f)
	f.URL = server.URL
	t.Cleanup(server.Close)
	return f
}

// Refuse has it answer everything with an error of this kind, "AccessDeniedException" say; "": no more.
func (f *FakeDynamoDB) Refuse(kind string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse = kind
}

type fakeCall struct {
	TableName                 string
	Key, Item                 fakeItem
	ConsistentRead            bool
	ConditionExpression       string
	ExpressionAttributeNames  map[string]string
	ExpressionAttributeValues map[string]map[string]string
}

// ServeHTTP carries one operation out.
func (f *FakeDynamoDB) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var call fakeCall
	if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
		dynamoFails(w, "SerializationException", err.Error())
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	table, exists := f.tables[call.TableName]
	_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	switch {
	case f.refuse != "":
		dynamoFails(w, f.refuse, "refused")
	case operation == "CreateTable" && exists:
		dynamoFails(w, "ResourceInUseException", "the table exists")
	case operation == "CreateTable":
		f.tables[call.TableName] = map[string]fakeItem{}
		dynamoAnswers(w, map[string]any{"TableDescription": map[string]any{"TableStatus": "CREATING"}})
	case !exists:
		dynamoFails(w, "ResourceNotFoundException", "no such table")
	case operation == "DescribeTable":
		dynamoAnswers(w, map[string]any{"Table": map[string]any{"TableStatus": "ACTIVE"}})
	case operation == "GetItem" && !call.ConsistentRead:
		dynamoFails(w, "ValidationException", "this fake serves consistent reads only")
	case operation == "GetItem":
		answer := map[string]any{}
		if item, ok := table[call.Key["Key"]["S"]]; ok {
			answer["Item"] = item
		}
		dynamoAnswers(w, answer)
	case operation == "PutItem":
		ok, err := call.holds(table[call.Item["Key"]["S"]])
		switch {
		case err != nil:
			dynamoFails(w, "ValidationException", err.Error())
		case !ok:
			dynamoFails(w, "ConditionalCheckFailedException", "the conditional request failed")
		default:
			table[call.Item["Key"]["S"]] = call.Item
			dynamoAnswers(w, map[string]any{})
		}
	default:
		dynamoFails(w, "UnknownOperationException", operation)
	}
}

// holds evaluates the condition against the item that is there, nil if there is none.
func (c *fakeCall) holds(item fakeItem) (bool, error) {
	attribute := func(name string) map[string]string { return item[c.ExpressionAttributeNames[name]] }
	expression := c.ConditionExpression
	if inner, ok := strings.CutPrefix(expression, "attribute_not_exists("); ok {
		return attribute(strings.TrimSuffix(inner, ")")) == nil, nil
	}
	left, right, ok := strings.Cut(expression, " = ")
	if !ok {
		return false, fmt.Errorf("condition %q", expression)
	}
	now, want := attribute(left), c.ExpressionAttributeValues[right]
	return now != nil && now["N"] == want["N"] && now["S"] == want["S"], nil
}

func dynamoAnswers(w http.ResponseWriter, answer any) {
	dynamoSends(w, http.StatusOK, answer)
}

func dynamoFails(w http.ResponseWriter, kind, message string) {
	dynamoSends(w, http.StatusBadRequest, map[string]string{"__type": "com.amazonaws.dynamodb.v20120810#" + kind, "message": message})
}

func dynamoSends(w http.ResponseWriter, code int, answer any) {
	text, _ := json.Marshal(answer) // cannot fail
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	w.Header().Set("X-Amz-Crc32", strconv.FormatUint(uint64(crc32.ChecksumIEEE(text)), 10))
	w.WriteHeader(code)
	_, _ = w.Write(text)
}
