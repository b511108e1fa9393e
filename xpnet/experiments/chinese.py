"""The words in the figures, in Chinese.

Figures are drawn in English and translated when they are saved, so that an experiment stays one short program.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import XpnetError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Fonts that have Chinese characters, the freely available ones first.
FONTS = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "Noto Sans CJK JP", "PingFang SC", "Heiti SC", "Hiragino Sans GB", "Microsoft YaHei",
    "SimHei", "Droid Sans Fallback", "Arial Unicode MS",
)  # fmt: skip

#: No formulas between dollar signs: their letters come from a font without Chinese.
WORDS = {
    # E1, E2
    "what holds: W good weather, F friend, S station": "成立的条件：W 天气好，F 有朋友，S 离车站近", "none": "无",
    "weighted sum (no unit)": "加权和（无单位）", "threshold 5: go above the line": "阈值 5：在线之上就去",
    "threshold 3: go above the line": "阈值 3：在线之上就去", "weighted sum z": "加权和 z", "output": "输出",
    "step and sigmoid": "阶跃与 sigmoid", "size of the change of the weights": "权重变化的大小",
    "change of the output": "输出的变化", "a small change": "小变化", "real change": "真实的变化",
    r"predicted: $\sum\,\Delta w\;\partial y/\partial w$": "预测：Σ Δw ∂y/∂w",
    # E3, E4, E5
    "value": "值", "saturated": "饱和区", "layer (1 is next to the input)": "层（第 1 层紧邻输入）",
    r"gradient norm $\|\partial J/\partial W\|$": "梯度范数 ‖∂J/∂W‖", "input $x_1$": "输入 x₁",
    "input $x_2$": "输入 x₂", "logistic regression": "逻辑回归", "linear SVM (hinge)": "线性支持向量机（hinge）",
    "class 0": "类别 0", "class 1": "类别 1", "margin, score ±1": "间隔，得分 ±1",
    # E6, E7
    "inputs x": "输入 x", "hidden $a^{(1)}$": "隐藏层 a⁽¹⁾", "outputs $a^{(2)}$": "输出 a⁽²⁾",
    "positive weight": "正权重", "negative weight": "负权重", "from unit i": "来自单元 i", "to unit j": "到单元 j",
    # E8 to E11
    "updates": "更新次数", "loss (nats)": "损失（nat）",
    "training (mean of 100 updates)": "训练（每 100 次更新的平均）",
    "test": "测试", "test accuracy (%)": "测试准确率（%）", "epoch": "轮次", "epochs": "轮次", "training": "训练",
    "accuracy (%)": "准确率（%）", "weight (no unit)": "权重（无单位）",
    "weights into the 16 units of the first hidden layer": "第一隐藏层 16 个单元的输入权重", "digit": "数字",
    "probability (%)": "概率（%）",
    # E14 to E16
    "final training loss (nats)": "最终训练损失（nat）", "before": "之前", "after the shock": "冲击之后",
    "after training": "再训练之后", "dead units (%)": "死亡单元（%）", "training loss (nats)": "训练损失（nat）",
    # E17, E18
    "eight hidden units": "八个隐藏单元", "target": "目标函数", "8 indicators": "8 个指示函数",
    "8 tanh units, trained": "8 个 tanh 单元，训练所得", "hidden units": "隐藏单元数",
    "root mean square error": "均方根误差", "error": "误差", "staircase": "阶梯",
    "trained (median)": "训练所得（中位数）",
    "start": "起点", "weight w": "权重 w", "bias b": "偏置 b", "the paths": "路径",
    "passes over the data": "遍历数据的次数", "loss (squared error)": "损失（平方误差）",
    "the loss of all pictures": "全部图片上的损失", "single samples": "单个样本", "full batch": "全批量",
    # E19, E20
    "nothing": "不加正则化", "early stopping": "提前停止", "training loss": "训练损失", "validation loss": "验证损失",
    "lowest without help": "不加正则化时的最低值", "hidden layers": "隐藏层数", "one start": "一次起始",
}  # fmt: skip

PATTERNS = (
    (r'"an? (\d)", (\d+)% sure', r"“\1”，\2% 确信"),
    (r"(\d+) hidden units?", r"\1 个隐藏单元"),
    (r"starts \(of (\d+), logarithmic\)", r"起始次数（共 \1 次，对数）"),
    (r"hidden layer (\d+)", r"隐藏层 \1"),
    (r"maxout \((\d+) pieces\)", r"maxout（\1 段）"),
    (r"loss ([\d.]+)", r"损失 \1"),
    (r"mini-batch of (\d+)", r"小批量，\1 个"),
    (r"mean of (\d+)", r"\1 次平均"),
)


def translate(text: str) -> str:
    """Return a label in Chinese, or as it is where it has no words to translate.

    Examples
    --------
    >>> translate("loss (nats)"), translate("20 hidden units"), translate("ReLU"), translate("0.5")
    ('损失（nat）', '20 个隐藏单元', 'ReLU', '0.5')
    """
    if text in WORDS:
        return WORDS[text]
    for pattern, chinese in PATTERNS:
        if re.fullmatch(pattern, text):
            return re.sub(pattern, chinese, text)
    return text


def translate_figure(figure: Figure) -> None:
    """Replace every label of a figure."""
    from matplotlib.text import Text

    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            # words at ticks come from a formatter, which would write them again when the figure is drawn
            at, words = axis.get_ticklocs(), [label.get_text() for label in axis.get_ticklabels()]
            if any(translate(word) != word for word in words):
                axis.set_ticks(at, [translate(word) for word in words])
    for label in figure.findobj(Text):
        text = label.get_text()
        if (chinese := translate(text)) != text:
            label.set_text(chinese)


def font() -> str:
    """Return the name of an installed font that has Chinese characters.

    Raises
    ------
    XpnetError
        There is none; says what to install.
    """
    from matplotlib import font_manager

    manager = font_manager.fontManager
    if (name := _first({f.name for f in manager.ttflist})) is not None:
        return name
    known = {f.fname for f in manager.ttflist}  # matplotlib's list may be older than the fonts
    stems = {name.replace(" ", "").removesuffix("SC").removesuffix("JP").lower() for name in FONTS}
    for path in font_manager.findSystemFonts():
        stem = Path(path).stem.replace("-", "").lower()
        if path not in known and any(stem.startswith(start) for start in stems):
            manager.addfont(path)
    if (name := _first({f.name for f in manager.ttflist})) is not None:
        return name
    raise XpnetError(
        "no font with Chinese characters was found; install one, on Debian: apt-get install fonts-noto-cjk"
    )


def _first(installed: set[str]) -> str | None:
    return next((name for name in FONTS if name in installed), None)
