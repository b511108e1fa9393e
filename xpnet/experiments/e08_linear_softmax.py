"""Digits with no hidden layer: linear softmax.

Ten neurons, one per digit, trained with softmax cross-entropy by plain SGD on batches of 100.
"""

import xpnet

from .lab import BLUE, RED, Lab, Watch, classifier

CLAIM = "MNIST: over 90 % by 1,500 updates, about 92 % and a flat loss by 5,000."

UPDATES, BATCH = 5000, 100


def run(lab: Lab) -> None:
    pictures = lab.pictures()
    updates = 1500 if lab.quick else UPDATES
    per_epoch = -(-len(pictures.x_train) // BATCH)
    watch = Watch((pictures.x_test, pictures.y_test), every=100)
    net = classifier(pictures, device=lab.device)
    xpnet.fit(net, (pictures.x_train, pictures.y_train), optimizer=xpnet.SGD(lr=0.5), batch_size=BATCH,
              epochs=-(-updates // per_epoch), callbacks=[watch])  # fmt: skip
    accuracy = dict(zip(watch.column(0).tolist(), watch.column(3).tolist(), strict=True))
    loss = dict(zip(watch.column(0).tolist(), watch.column(2).tolist(), strict=True))
    lab.say("  updates   test loss   test accuracy")
    for at in (100, 500, 1000, 1500, 3000, 5000):
        if at in accuracy:
            lab.say(f"  {at:7,d}   {loss[at]:9.4f}   {accuracy[at]:13.2%}")
    last = 5000 if 5000 in accuracy else max(accuracy)
    change = abs(loss[last] - loss[last - 1000]) / loss[last - 1000]
    lab.record(accuracy=accuracy, loss=loss, change_of_loss_in_last_1000=change)
    lab.claim(f"over 90 % by 1,500 updates ({accuracy[1500]:.2%})", accuracy[1500] > 0.9)
    if lab.data == "mnist":
        lab.claim(f"about 92 % by 5,000 ({accuracy[5000]:.2%})", 0.915 < accuracy[5000] < 0.935)
        lab.claim(f"the test loss is flat: {change:.1%} change in the last 1,000 updates", change < 0.03)

    figure, axes = lab.figure(1, 2, height=2.9)
    left, right = axes[0]
    left.plot(
        watch.column(0), watch.column(1), color=BLUE, linestyle="--", label="training (mean of 100 updates)"
    )
    left.plot(watch.column(0), watch.column(2), color=RED, label="test")
    left.set(xlabel="updates", ylabel="loss (nats)")
    left.legend()
    right.plot(watch.column(0), 100 * watch.column(3), color=RED)
    right.axhline(90, color="black", linewidth=0.8, linestyle=":")
    right.set(xlabel="updates", ylabel="test accuracy (%)")
    lab.save(figure, "linear_softmax")
