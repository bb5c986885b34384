// Prints what is published to the topic `gocn`, on Go's gRPC stack, until the broker ends the stream.
// The first line, `subscribed`, says that the subscription is live.
//
// usage: subscriber ADDRESS
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"interop/proto"
)

func main() {
	// As often as this stack pings at most.
	pings := keepalive.ClientParameters{Time: 10 * time.Second, PermitWithoutStream: true}
	options := []grpc.DialOption{grpc.WithInsecure(), grpc.WithKeepaliveParams(pings)}
	connection, err := grpc.Dial(os.Args[1], options...)
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()

	request := &proto.SubscribeRequest{Topic: "gocn"}
	stream, err := proto.NewPubSubServiceClient(connection).Subscribe(context.Background(), request)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := stream.Header(); err != nil {
		log.Fatal(err)
	}
	fmt.Println("subscribed")
	for {
		response, err := stream.Recv()
		if status.Code(err) == codes.Unavailable {
			fmt.Println("unavailable")
			return
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(response.Payload))
	}
}
